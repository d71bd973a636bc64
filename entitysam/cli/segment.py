"""Segments and tracks every entity of a video, without prompts and without categories.

INPUT is a video, a folder or quoted glob of images (natural order), an image, a camera's number, a stream's address, or
standard input: '-' for a video, raw:WIDTHxHEIGHT@FPS for RGB pixels.

written to the result folder, or with '-o -' the lines alone to standard output:
  overlay.mp4        the frames with their entities drawn; colours stay with ids
  masks/<frame>.png  entity ids, id = R + 256 G + 65536 B, 0 = no entity
  segments.json      which ids are on which frame (panoptic video annotations)
  segments.jsonl     the same with scores and masks, a line per frame, to be read while the run goes on
  tracks.json        per entity: first and last frame, score, box, area and run-length mask on every frame
  contact_sheet.png  a few frames, original above overlay
  events.json        with --online: frames on which entities are born, lost and found again
  shown.jpg          with --labels: the images that the classifier was given; the files above have the names

Only files of an earlier run over the same input are replaced. Times of frames are kept in the json files and the overlay.

examples:
  entitysam segment clip.mp4 -o out/clip
  entitysam segment clip.mp4 -o out/clip --model vit-l --device cuda --dtype bf16
  entitysam segment 'frames/*.jpg' --model tiny --stride 2 --max-frames 100
  entitysam segment 0 --drop-stale --preview 8090 -o out/camera
  entitysam segment rtsp://camera/live --keep 60 -o out/last_minute  # connects again when the stream is lost
  ffmpeg -i clip.mp4 -f matroska - | entitysam segment - -o -        # JSON Lines on standard output
  entitysam segment clip.mp4 -o out/clip --fast 2                     # keyframes; docs/BENCHMARKS.md has the price
  entitysam segment clip.mp4 -o out/clip --resume
  entitysam segment clip.mp4 -o out/clip --reid
  entitysam segment clip.mp4 -o out/clip --prompts prompts.json --weights sam2.1_hiera_small.pt
  entitysam segment hours.mp4 -o out/hours --window 100              # memory and disk of 100 frames at a time
  entitysam segment crowd.mp4 -o out/crowd --entities 200            # more than the network has queries: tiles
  entitysam segment clip.mp4 --labels "person, dog, grass"           # GPT-4o; needs $OPENAI_API_KEY
  entitysam segment clip.mp4 --labels coco --base-url http://localhost:8000/v1 --vlm Qwen/Qwen2.5-VL-7B-Instruct
  entitysam segment clip.mp4 --weights my.safetensors inference.max_entities=20 model.entity_decoder.depth=6
"""

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from entitysam.cli.shared.arguments import add_model_arguments, add_output_arguments
from entitysam.cli.shared.labels import Labelling, add_label_arguments, open_labeller, split_classifier_overrides

if TYPE_CHECKING:
    from entitysam.io.readers.source import FrameSource
    from entitysam.masa.reid import Reidentifier
    from entitysam.sam2.prompts import Prompt


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", metavar="INPUT", help="video, folder, 'glob', image, camera number or stream address")
    add_output_arguments(parser)
    frames = parser.add_argument_group("frames")
    frames.add_argument("--stride", type=int, default=1, metavar="N", help="take every N-th frame (default: 1)")
    frames.add_argument("--max-frames", type=int, metavar="N", help="stop after N frames")
    live = parser.add_argument_group("live inputs: cameras, streams, standard input")
    live.add_argument(
        "--drop-stale", action="store_true", help="always take the newest frame; says how many were dropped"
    )
    live.add_argument("--keep", type=float, metavar="SECONDS", help="the result folder holds only the last seconds")
    live.add_argument("--preview", type=int, metavar="PORT", help="show the run at http://127.0.0.1:PORT/")
    method = parser.add_argument_group("method")
    method.add_argument("--online", action="store_true", help="causal: no look-ahead (always used for cameras)")
    method.add_argument("--warmup-frames", type=int, metavar="N",
                        help="extra passes over the first frame (default: 3, as published)")  # fmt: skip
    method.add_argument("--threshold", type=float, metavar="P", help="lowest score of an entity, 0..1 (default: 0.05)")
    method.add_argument("--reid", nargs="?", const="", metavar="FILE",
                        help="returning entities get their earlier ids, by MASA (FILE: its weights; default: the tiny ones)")  # fmt: skip
    method.add_argument("--prompts", metavar="FILE", type=Path,
                        help="follow only the objects of this JSON file of points, boxes and masks, by SAM 2.1")  # fmt: skip
    method.add_argument("--window", type=int, metavar="N",
                        help="long videos: segment windows of N frames, which overlap by 8, one after the other")  # fmt: skip
    more = method.add_mutually_exclusive_group()
    more.add_argument("--tiles", type=read_grid, metavar="RxC",
                      help="more entities: segment R x C overlapping tiles of the frame, each with all queries")  # fmt: skip
    more.add_argument("--entities", type=int, metavar="N",
                      help="choose tiles for N entities on a frame, and look once more at what none of them claims")  # fmt: skip
    method.add_argument("--fast", type=int, choices=range(4), metavar="0..3",
                        help="faster and less exact: 1 fewer memories, 2 and 3 keyframes (default: 0, exact)")  # fmt: skip
    method.add_argument("--compile", action="store_true",
                        help="compile the network first, which takes minutes and pays for long videos")  # fmt: skip
    method.add_argument("--resume", action="store_true", help="continue an interrupted run in the result folder")
    add_label_arguments(parser)
    add_model_arguments(parser)
    parser.set_defaults(takes_overrides=True)


def read_grid(text: str) -> tuple[int, int]:
    """ "2x3" -> (2, 3), rows and columns."""
    rows, cross, columns = text.partition("x")
    if not (cross and rows.isdecimal() and columns.isdecimal() and 1 <= int(rows) <= 16 and 1 <= int(columns) <= 16):
        raise argparse.ArgumentTypeError(f"'{text}' is not ROWSxCOLUMNS with 1 to 16 of each, e.g. 2x3")
    return int(rows), int(columns)


def run(arguments: argparse.Namespace) -> int:
    """Opens the input, then the output, then the model, so that cheap checks fail first."""
    from entitysam.cli.shared.models import check_model_options, open_model
    from entitysam.io.readers.source import InputError, open_frames
    from entitysam.io.result_folder import (
        CROPS,
        EVENTS,
        SEGMENT_FILES,
        claim_folder,
        default_folder,
        origin_of,
        source_name,
    )

    options = {"stride": arguments.stride, "max_frames": arguments.max_frames, "drop_stale": arguments.drop_stale}
    with open_frames(arguments.input, **options) as source, ExitStack() as stack:
        if source.is_live and arguments.resume:
            raise InputError(f"{arguments.input}: a live input cannot be resumed")
        _check_windows_and_tiles(arguments, source)
        _check_live_options(arguments, source)
        if arguments.reid is not None and (arguments.online or source.is_live):
            raise InputError(f"{arguments.input}: --reid needs the whole video: neither --online nor a camera")
        prompts = _read_prompts(arguments, source) if arguments.prompts else None
        classifier_overrides, arguments.overrides = split_classifier_overrides(arguments.overrides)
        check_model_options(arguments)

        from entitysam.cli.shared.settings import read_settings  # imports the config's packages

        overrides, inference = read_settings(arguments)
        labelling = open_labeller(arguments, classifier_overrides)
        if source.is_live and labelling:
            raise InputError(f"{arguments.input}: --labels needs an input that can be read twice, not a live one")
        is_online = arguments.online or source.is_live
        files = [*SEGMENT_FILES, *([EVENTS] if is_online else []), *([CROPS] if labelling else [])]
        origin = None if source.is_live else origin_of(arguments.input, arguments.stride, arguments.max_frames)
        out = None if str(arguments.out) == "-" else arguments.out or default_folder(arguments.input)
        if out is not None:
            stack.enter_context(claim_folder(out, files, source, arguments.input, origin))

        from entitysam.cli.shared.progress import note, warn
        from entitysam.cli.shared.results import Job, run_job
        from entitysam.cli.shared.resume import input_identity
        from entitysam.io.writers.preview import Preview

        if prompts is None:
            opened = open_model(arguments.model, arguments.weights, arguments.device, overrides)
        else:
            from entitysam.cli.shared.prompted import open_prompted_model, run_prompted

            opened = open_prompted_model(arguments, overrides)
        if opened.weights is None:
            warn(f"{arguments.model} runs with random weights: its results are meaningless")
        preview = None if arguments.preview is None else stack.enter_context(Preview(arguments.preview))
        if preview:
            note(f"preview: {preview.url}")
        job = Job(
            source,
            reopen=lambda: open_frames(arguments.input, **options),
            identity={"files": input_identity(arguments.input), **options},
            out=out,
            title=source_name(arguments.input),
            origin=origin,
            online=arguments.online,
            resume=arguments.resume,
            quiet=arguments.quiet,
            keep=arguments.keep,
            preview=preview,
            window=arguments.window,
            tiles=arguments.tiles,
            entities=arguments.entities,
            reidentifier=None if arguments.reid is None else _open_reidentifier(arguments),
        )
        if prompts is None:
            run_job(job, opened, inference)
        else:
            run_prompted(job, opened, prompts, inference["amp"])
        if labelling and out:
            _label(arguments, out, source, labelling)
    return 0


def _read_prompts(arguments: argparse.Namespace, source: "FrameSource") -> "list[Prompt]":
    """The prompts of `--prompts`; refuses options that do not go with them."""
    from entitysam.errors import ConfigError
    from entitysam.io.readers.source import InputError
    from entitysam.sam2.prompts import read_prompts
    from entitysam.shipped import RANDOM, is_weight_file

    others = {"--online": arguments.online, "--reid": arguments.reid is not None, "--resume": arguments.resume,
              "--window": arguments.window, "--tiles": arguments.tiles, "--entities": arguments.entities,
              "a live input": source.is_live}  # fmt: skip
    for name, given in others.items():
        if given:
            raise InputError(f"{arguments.input}: --prompts does not go together with {name}")
    named = arguments.model.startswith("sam2") or is_weight_file(arguments.model)
    if not named and arguments.weights in (None, RANDOM):  # before another network is downloaded
        raise ConfigError(
            "--prompts needs SAM 2.1: --weights sam2.1_hiera_small.pt (a file of its release), or --model sam2_small"
        )
    return read_prompts(arguments.prompts)


def _check_windows_and_tiles(arguments: argparse.Namespace, source: "FrameSource") -> None:
    """Raises InputError for options that cannot be combined, and values out of their range."""
    from entitysam.io.readers.source import InputError

    where = arguments.input
    if arguments.window is not None and arguments.window < 2:
        raise InputError(f"{where}: --window needs at least 2 frames, not {arguments.window}")
    if arguments.entities is not None and arguments.entities < 1:
        raise InputError(f"{where}: --entities must be at least 1, not {arguments.entities}")
    if arguments.window and (arguments.online or source.is_live):
        raise InputError(f"{where}: --window is for offline runs; an online run needs no windows")
    for option in ("window", "tiles", "entities"):
        if getattr(arguments, option) and arguments.resume:
            raise InputError(f"{where}: --resume does not work with --{option}")
    if arguments.reid is not None and arguments.window:
        raise InputError(f"{where}: --reid does not work with --window, which compares appearance itself")


def _check_live_options(arguments: argparse.Namespace, source: "FrameSource") -> None:
    """Raises InputError for options that do not go with the input or with each other."""
    from entitysam.io.readers.source import InputError

    where, to_stdout = arguments.input, str(arguments.out) == "-"
    if arguments.keep is not None and not (source.is_live and arguments.keep > 0):
        raise InputError(f"{where}: --keep is a number of seconds above 0 of a live input")
    if arguments.preview is not None and not (arguments.online or source.is_live):
        raise InputError(f"{where}: --preview needs an online run: --online, or a live input")
    for option in ("resume", "keep", "labels"):
        if to_stdout and getattr(arguments, option):
            raise InputError(f"{where}: --{option} needs a result folder, not '-o -'")


def _open_reidentifier(arguments: argparse.Namespace) -> "Reidentifier":
    from entitysam.engine.methods.masa import open_reidentifier  # MASA is imported only where it runs

    return open_reidentifier(arguments.reid, arguments.device)


def _label(arguments: argparse.Namespace, out: Path, source: "FrameSource", labelling: Labelling) -> None:
    """Labels the result; the segmentation is kept if that fails."""
    from entitysam.cli.shared.labelling import label_folder
    from entitysam.cli.shared.progress import note
    from entitysam.engine.labelling.saved_result import SavedResult

    try:
        label_folder(SavedResult.read(out), out, source, *labelling, quiet=arguments.quiet)
    except BaseException:
        note(f"{out}: segmented, but not labelled; 'entitysam label {out} --labels ...' labels it")
        raise
