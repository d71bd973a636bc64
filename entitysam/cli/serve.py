"""Opens a page to look at results, to correct and to export them.

INPUT is a result, a video or a stream. A result is a result folder of 'entitysam segment', 'track' or 'demo'. The page is served on
this machine alone, unless --host says otherwise: then every request needs the token in the address that is printed. Edits are kept
in edits.jsonl in the result folder; the result itself is never changed. A video is segmented first; a stream or a camera (0, 1, ...)
is started in the page, which also segments uploads, the videos below --videos and the browser's camera. What it segments goes to
--work.

examples:
  entitysam serve out/demo
  entitysam serve out/clip out/other --port 9000
  entitysam serve clip.mp4 rtsp://camera/stream --videos /mnt/videos
  entitysam serve out/clip --input /mnt/videos/clip.mp4
  entitysam serve out/clip --prompter sam2.1_hiera_small.pt
  entitysam serve out/clip --host 0.0.0.0
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from entitysam.cli.shared.arguments import add_model_arguments

if TYPE_CHECKING:
    from entitysam.serve.sources import Source

PORT = 8765


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="*", metavar="INPUT",
                        help="result folders, videos, folders of images, addresses of streams, numbers of cameras")  # fmt: skip
    parser.add_argument("--input", metavar="FILE", help="the frames of the one result, if they have moved")
    parser.add_argument("--videos", metavar="FOLDER", type=Path, help="offer the videos below this folder in the page")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine)")
    parser.add_argument(
        "--port", type=int, default=PORT, metavar="N", help=f"port (default: {PORT}; 0: any that is free)"
    )
    parser.add_argument("--work", type=Path, default=Path("out/serve"), metavar="FOLDER",
                        help="for uploads and their results (default: out/serve)")  # fmt: skip
    parser.add_argument("--no-uploads", action="store_true", help="take no videos to segment")
    parser.add_argument("--max-upload", type=int, default=2048, metavar="MIB", help="largest upload (default: 2048)")
    parser.add_argument("--max-frames", type=int, default=20_000, metavar="N",
                        help="frames of an upload that are segmented (default: 20000)")  # fmt: skip
    parser.add_argument("--prompter", metavar="FILE",
                        help="weights of SAM 2.1: clicks and boxes follow an object through the video")  # fmt: skip
    add_model_arguments(parser)
    parser.add_argument("--token", metavar="TEXT", help="that requests must carry (default: a random one with --host)")


def run(arguments: argparse.Namespace) -> int:
    from entitysam.io.readers.base import InputError

    if arguments.input and len(arguments.inputs) != 1:
        raise InputError("--input goes together with exactly one result")
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"'entitysam serve' needs more packages ({error.name}): pip install 'entitysam[serve]'"
        ) from error

    from entitysam.cli.shared.models import check_model_options
    from entitysam.serve.segmenting import Limits, Prompter, Studio
    from entitysam.serve.server import serve
    from entitysam.serve.sources import Sources

    studio = None
    if not arguments.no_uploads:
        check_model_options(arguments)
        limits = Limits(arguments.max_upload, max_frames=arguments.max_frames)
        prompter = None if arguments.prompter is None else Prompter(arguments.prompter)
        if prompter is not None and not Path(prompter.model).is_file():
            raise FileNotFoundError(f"no weight file {prompter.model}")
        model = arguments.model, arguments.weights, arguments.device
        studio = Studio(arguments.work, *model, limits, prompter)
    place = arguments.host, arguments.port, arguments.token
    results, given = split(arguments.inputs)
    sources = Sources(given, arguments.videos)
    return serve(results, arguments.input, *place, studio, sources, announce)


def split(inputs: Sequence[str]) -> tuple[list[Path], list["Source"]]:
    """Result folders, and what is to be segmented."""
    from entitysam.io.readers.images import SUFFIXES
    from entitysam.io.result_folder import TRACKS
    from entitysam.serve.sources import Source, is_live, live_source

    results: list[Path] = []
    sources: list[Source] = []
    for text in inputs:
        path = Path(text)
        is_result = (path / TRACKS).is_file()
        if is_live(text):
            sources.append(live_source(text))
        elif path.is_file() or (
            path.is_dir() and not is_result and any(child.suffix.lower() in SUFFIXES for child in path.iterdir())
        ):
            sources.append(Source(path.name, str(path.absolute())))
        else:
            results.append(path)
    return results, sources


def announce(address: str) -> None:
    """Says where the page is, on standard output."""
    print(f"open {address}   (Ctrl-C ends)", flush=True)
