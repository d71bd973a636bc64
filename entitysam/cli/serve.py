"""Opens a page to look at results, to correct and to export them.

RESULT is a result folder of 'entitysam segment', 'track' (with masks) or 'demo'. The page is served on this machine alone, unless
--host says otherwise: then every request needs the token in the address that is printed. Edits are kept in edits.jsonl in the
result folder; the result itself is never changed.

examples:
  entitysam serve out/demo
  entitysam serve out/clip out/other --port 9000
  entitysam serve out/clip --input /mnt/videos/clip.mp4
  entitysam serve out/clip --host 0.0.0.0
"""

import argparse
from pathlib import Path

PORT = 8765


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", nargs="*", metavar="RESULT", type=Path, help="result folders")
    parser.add_argument("--input", metavar="INPUT", help="the frames of the one RESULT, if they have moved")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine)")
    parser.add_argument(
        "--port", type=int, default=PORT, metavar="N", help=f"port (default: {PORT}; 0: any that is free)"
    )
    parser.add_argument("--token", metavar="TEXT", help="that requests must carry (default: a random one with --host)")


def run(arguments: argparse.Namespace) -> int:
    from entitysam.io.readers.base import InputError

    if arguments.input and len(arguments.results) != 1:
        raise InputError("--input goes together with exactly one RESULT")
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"'entitysam serve' needs more packages ({error.name}): pip install 'entitysam[serve]'"
        ) from error

    from entitysam.serve.server import serve

    return serve(arguments.results, arguments.input, arguments.host, arguments.port, arguments.token)
