"""Segments the clip that comes with entitysam, with the model `tiny`, and says where the pictures are.

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
    from entitysam.io.files import check_folder
    from entitysam.io.readers.source import FrameSource, InputError

    if arguments.frames < 1:
        raise InputError(f"--frames must be at least 1, not {arguments.frames}")
    out = check_folder(arguments.out)

    from entitysam.cli.shared.models import open_model
    from entitysam.cli.shared.progress import warn
    from entitysam.cli.shared.results import Job, run_job
    from entitysam.cli.shared.settings import check, split_overrides
    from entitysam.data.synthetic.render import demo_clip
    from entitysam.io.readers.memory import MemoryDecoder

    opened = open_model("tiny", None, arguments.device, {})
    if opened.weights is None:
        warn("the trained weights of 'tiny' are not in this installation: the demo runs with random ones, so that every "
             "step is shown and what it finds means nothing")  # fmt: skip
    clip, _ = demo_clip(arguments.frames)
    source = FrameSource(MemoryDecoder(clip, FPS))
    job = Job(source, lambda: source, {"demo": len(clip)}, out, "demo", quiet=arguments.quiet)
    run_job(job, opened, check(split_overrides([])[1]))
    print(f"look at {out / 'contact_sheet.png'} and {out / 'overlay.mp4'}")
    return 0
