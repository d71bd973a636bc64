"""Segments a synthetic clip with the model `tiny` and prints where the images are.

example:
  entitysam demo -o out/demo
"""

import argparse

from entitysam.cli.shared.arguments import add_output_arguments

FPS = 8.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_output_arguments(parser, default="out/demo")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default: auto)")
    parser.add_argument("--frames", type=int, default=24, metavar="N", help="length of the clip (default: 24)")


def run(arguments: argparse.Namespace) -> int:
    from entitysam.io.readers.base import InputError
    from entitysam.io.result_folder import CLIP, SEGMENT_FILES, claim_folder, origin_of

    if arguments.frames < 1:
        raise InputError(f"--frames must be at least 1, not {arguments.frames}")

    from entitysam.cli.shared.models import open_model
    from entitysam.cli.shared.progress import warn
    from entitysam.cli.shared.results import Job, run_job
    from entitysam.cli.shared.settings import check, split_overrides
    from entitysam.data.synthetic.render import demo_clip
    from entitysam.io.readers.memory import MemoryDecoder
    from entitysam.io.readers.source import FrameSource
    from entitysam.io.writers.video import VideoWriter

    clip, _ = demo_clip(arguments.frames)
    source = FrameSource(MemoryDecoder(clip, FPS))
    out = arguments.out
    origin = origin_of(str(out / CLIP), 1, None)
    with claim_folder(out, [*SEGMENT_FILES, CLIP], source, "demo", origin):
        opened = open_model("tiny", None, arguments.device, {})
        if opened.weights is None:
            warn("the trained weights of 'tiny' are not in this installation: the demo runs with random weights and "
                 "its entities mean nothing")  # fmt: skip
        job = Job(source, lambda: source, {"demo": len(clip)}, out, "demo", origin, quiet=arguments.quiet)
        job.other_files = [CLIP]
        run_job(job, opened, check(split_overrides([])[1]))
        with VideoWriter(out / CLIP, source.width, source.height, FPS) as video:
            for index, frame in enumerate(clip):
                video.add(frame, index / FPS)
    print(f"look at {out / 'contact_sheet.png'} and {out / 'overlay.mp4'}, or: entitysam serve {out}")
    return 0
