"""Generates, converts and checks data sets; `datasets/README.md` has their layouts.

Examples:
  python tools/prepare_data.py synthetic --out datasets/synthetic
  python tools/prepare_data.py synthetic --long --out datasets/long --videos 2
  python tools/prepare_data.py check coco --root datasets/coco --split train2017
  python tools/prepare_data.py proposals --images datasets/sa1b/images --out datasets/proposals
  python tools/prepare_data.py vipseg --root VIPSeg --out datasets/VIPSeg_720P
  python tools/prepare_data.py scalabel --labels labels/seg_track_20/rles/val --images images/seg_track_20/val --out datasets/bdd
"""

import argparse
import os
import sys
from functools import partial
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from entitysam.data.prepare.checks.evaluation import CHECKS
from entitysam.data.prepare.vipseg_layout import convert_scalabel, convert_vipseg
from entitysam.data.synthetic.writer import SyntheticSet, write_long, write_synthetic
from entitysam.engine.methods.mask_proposals import write_proposals


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = result.add_subparsers(dest="command", required=True)
    add_synthetic(commands)
    add_check(commands)
    add_proposals(commands)
    add_vipseg(commands)
    add_scalabel(commands)
    return result


def main() -> int:
    arguments = parser().parse_args()
    try:
        return arguments.run(arguments)
    except (ValueError, OSError) as error:
        print(f"prepare_data: {error}", file=sys.stderr)
        return 1


def add_command(commands, name: str, summary: str, details: str) -> argparse.ArgumentParser:
    """A sub-command whose help is its summary, the details, and its example above."""
    example, *_ = (line.strip() for line in (__doc__ or "").splitlines() if f"prepare_data.py {name} " in line)
    description = f"{summary[0].upper()}{summary[1:]}. {details}\n\nExample:\n  {example}"
    return commands.add_parser(
        name, help=summary, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def progress_bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())


def add_synthetic(commands) -> None:
    defaults = SyntheticSet()
    command = add_command(
        commands, "synthetic", "write the synthetic data set",
        "COCO-panoptic training images, VIPSeg-format validation videos\nand training videos, with exact ids; "
        "the same for the same seed. Earlier files in the folder are overwritten.",
    )  # fmt: skip
    command.add_argument("--out", type=Path, default=Path("datasets/synthetic"))
    command.add_argument("--images", type=count, default=defaults.train_images, help="training images")
    command.add_argument("--val-images", type=count, default=defaults.val_images, help="validation images")
    command.add_argument("--train-videos", type=count, default=defaults.train_videos, help="training videos")
    command.add_argument("--train-frames", type=count, default=defaults.train_frames, help="frames of each")
    command.add_argument("--videos", type=count, help="validation videos (24; with --long 4)")
    command.add_argument("--frames", type=count, help="frames of each (16; with --long 5000)")
    command.add_argument("--size", type=size, default=defaults.video_size, metavar="WxH", help="of the videos")
    command.add_argument("--image-size", type=size, metavar="WxH", help="of the images (256 to 320 at random)")
    command.add_argument("--seed", type=count, default=defaults.seed)
    command.add_argument("--long", action="store_true",
                         help="only long videos instead (split long): thousands of frames, over 200 entities that come, "
                         "cross, go and return")  # fmt: skip
    command.add_argument("--workers", type=count, default=os.cpu_count(), help="processes")
    command.set_defaults(run=run_synthetic)


def run_synthetic(arguments: argparse.Namespace) -> int:
    if arguments.long:
        return run_long(arguments)
    defaults = SyntheticSet()
    plan = SyntheticSet(
        train_images=arguments.images,
        val_images=arguments.val_images,
        train_videos=arguments.train_videos,
        train_frames=arguments.train_frames,
        val_videos=defaults.val_videos if arguments.videos is None else arguments.videos,
        val_frames=defaults.val_frames if arguments.frames is None else arguments.frames,
        video_size=arguments.size,
        image_size=arguments.image_size,
        seed=arguments.seed,
    )
    with progress_bar() as bar:
        task = bar.add_task("synthetic", total=len(plan))
        write_synthetic(arguments.out, plan, arguments.workers, lambda done: bar.update(task, completed=done))
    print(f"{len(plan)} images and videos in {arguments.out}")
    return 0


def run_long(arguments: argparse.Namespace) -> int:
    videos = 4 if arguments.videos is None else arguments.videos
    frames = 5000 if arguments.frames is None else arguments.frames
    with progress_bar() as bar:
        task = bar.add_task("synthetic", total=videos)
        show = lambda done: bar.update(task, completed=done)  # noqa: E731
        write_long(arguments.out, videos, frames, arguments.size, arguments.seed, arguments.workers, show)
    print(f"{videos} long videos of {frames} frames in {arguments.out}")
    return 0


def add_check(commands) -> None:
    command = add_command(
        commands, "check", "check files and annotations of a data set",
        "Prints a line per problem, with\nits file; exit status 1 if there is one.",
    )  # fmt: skip
    command.add_argument("name", choices=sorted(CHECKS))
    command.add_argument("--root", type=Path, help="folder of the data set")
    command.add_argument("--split", help="e.g. train2017")
    command.add_argument("--workers", type=count, default=os.cpu_count(), help="processes")
    command.set_defaults(run=run_check)


def run_check(arguments: argparse.Namespace) -> int:
    check = CHECKS[arguments.name]
    root, split = arguments.root or Path(check.root), arguments.split or check.split
    with progress_bar() as bar:
        task = bar.add_task(f"check {arguments.name} {split}", total=None)
        report = check.run(
            root,
            split,
            arguments.workers,
            total=lambda images: bar.update(task, total=images),
            progress=lambda done: bar.update(task, completed=done),
        )
    for problem in report.problems:
        print(problem)
    if report.empty:
        print(f"note: {len(report.empty)} without an entity, e.g. {report.empty[0]}; they become clips without targets")
    print(f"{report.checked} images checked, {len(report.problems)} problems")
    return 1 if report.problems else 0


def add_proposals(commands) -> None:
    command = add_command(
        commands, "proposals", "generate masks of all objects with SAM, for MASA",
        "SAM segments every image below a\nfolder; a second call continues an interrupted one. OUT/SPLIT becomes "
        "a link to the images,\nOUT/annotations/instances_SPLIT.json their masks.",
    )  # fmt: skip
    command.add_argument("--images", type=Path, required=True, help="folder of images, searched with its subfolders")
    command.add_argument("--out", type=Path, default=Path("datasets/proposals"))
    command.add_argument("--split", default="train", help="name of the split in the new set (train)")
    command.add_argument("--model", default="vit_h", choices=("vit_b", "vit_l", "vit_h"), help="SAM (vit_h)")
    command.add_argument("--weights", help="weight file of SAM, or random (checkpoints/, then the hub)")
    command.add_argument("--device", default="auto")
    command.add_argument("--points", type=count, default=32, help="prompts along each side (32)")
    command.set_defaults(run=run_proposals)


def run_proposals(arguments: argparse.Namespace) -> int:
    from entitysam.esam.everything import everything  # torch and SAM: the other commands start without them
    from entitysam.esam.prompting import PromptingConfig
    from entitysam.esam.sam_backend import sam_segmenter

    segmenter = sam_segmenter(arguments.model, arguments.weights, arguments.device)
    segment = partial(everything, segmenter, config=PromptingConfig(points_per_side=arguments.points))
    with progress_bar() as bar:
        task = bar.add_task("proposals", total=None)
        show = lambda done, total: bar.update(task, completed=done, total=total)  # noqa: E731
        masks = write_proposals(segment, arguments.images, arguments.out, arguments.split, show)
    print(f"{masks} masks in {arguments.out}")
    return 0


def add_vipseg(commands) -> None:
    command = add_command(
        commands, "vipseg", "convert the original release of VIPSeg to VIPSeg_720P",
        "Height 720, width int(720 * w / h), images\nbilinear, masks nearest. Existing images are not "
        "written again.",
    )  # fmt: skip
    command.add_argument("--root", type=Path, required=True, help="folder with imgs, panomasks and the lists of splits")
    command.add_argument("--out", type=Path, default=Path("datasets/VIPSeg_720P"))
    command.add_argument("--split", nargs="+", default=["val"], help="train, val, test (val)")
    command.add_argument("--workers", type=count, default=os.cpu_count(), help="processes")
    command.set_defaults(run=run_vipseg)


def run_vipseg(arguments: argparse.Namespace) -> int:
    with progress_bar() as bar:
        task = bar.add_task("vipseg", total=None)
        report = lambda done: bar.update(task, completed=done)  # noqa: E731
        videos = convert_vipseg(arguments.root, arguments.out, arguments.split, arguments.workers, report)
    print(f"{videos} videos in {arguments.out}")
    return 0


def add_scalabel(commands) -> None:
    command = add_command(
        commands, "scalabel", "convert Scalabel tracks (BDD100K MOTS) to VIPSeg's layout",
        "Track ids become 1, 2, ...\nin order of first appearance, category names ids 0, 1, ... in alphabetic order.",
    )  # fmt: skip
    command.add_argument("--labels", type=Path, required=True, help="folder of json files, one per video")
    command.add_argument("--images", type=Path, required=True, help="folder with a folder of frames per video")
    command.add_argument("--out", type=Path, required=True)
    command.add_argument("--split", default="val", help="name of the split in the new set (val)")
    command.set_defaults(run=run_scalabel)


def run_scalabel(arguments: argparse.Namespace) -> int:
    videos = convert_scalabel(arguments.labels, arguments.images, arguments.out, arguments.split)
    print(f"{videos} videos in {arguments.out}")
    return 0


def count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"'{text}' is below 0")
    return number


def size(text: str) -> tuple[int, int]:
    """ "320x192" -> (192, 320), (height, width)."""
    width, cross, height = text.partition("x")
    if not (cross and width.isdigit() and height.isdigit() and int(width) >= 16 and int(height) >= 16):
        raise argparse.ArgumentTypeError(f"'{text}' is not WIDTHxHEIGHT with sides of 16 or more, e.g. 320x192")
    return int(height), int(width)


if __name__ == "__main__":
    sys.exit(main())
