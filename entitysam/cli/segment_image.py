"""Segments every entity of images without training: E-SAM on a frozen SAM or SAM 2.1, or its automatic masks.

INPUT is an image, a folder of images or a quoted glob; the images may differ in size.

written to the result folder:
  masks/<name>.png      entity ids, id = R + 256 G + 65536 B, 0 = no entity
  overlays/<name>.jpg   the image with its entities drawn
  panoptic.json         COCO panoptic annotations of all images, with scores
  explain/<name>/*.jpg  with --explain: superpixels, automatic masks, after MMG, after EMR, prompts, after USR

examples:
  entitysam segment-image photo.jpg -o out/photo --explain
  entitysam segment-image photos/ -o out/photos --model vit_l --device cuda --dtype bf16
  entitysam segment-image 'photos/*.jpg' -o out/photos --resume
  entitysam segment-image photo.jpg -o out/sam --method sam --weights checkpoints/sam_vit_h_4b8939.pth
  entitysam segment-image photo.jpg -o out/photo --model sam2_small --weights sam2.1_hiera_small.pt
  entitysam segment-image photo.jpg -o out/photo model.refinement.tolerance=0.2 model.superpixels.method=slic
"""

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from entitysam.cli.shared.arguments import add_output_arguments
from entitysam.shipped import RANDOM

if TYPE_CHECKING:
    from entitysam.esam.results import ImageResults
    from entitysam.esam.segmenter import ESAM

MODELS = ("vit_b", "vit_l", "vit_h", "sam2_tiny", "sam2_small", "sam2_base_plus", "sam2_large")
MODULES = ("mask_generation", "refinement", "recovery")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", metavar="INPUT", help="image, folder or 'glob'")
    add_output_arguments(parser)
    parser.add_argument("--method", choices=("esam", "sam"), default="esam", help="default: esam")
    parser.add_argument("--explain", action="store_true", help="write an image per step")
    parser.add_argument("--resume", action="store_true", help="skip the images that an interrupted run has finished")
    group = parser.add_argument_group("model")
    group.add_argument("--model", choices=MODELS, default="vit_h", help="SAM, or SAM 2.1: sam2_... (default: vit_h)")
    group.add_argument(
        "--weights", metavar="FILE", help="its weights (default: checkpoints/, then, of SAM, the hub), or 'random'"
    )
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default: auto)")
    group.add_argument("--dtype", choices=("fp32", "bf16", "fp16"), help="of the image encoder (default: fp32)")
    parser.set_defaults(takes_overrides=True)


def run(arguments: argparse.Namespace) -> int:
    """Checks input and output before the model is built, so that cheap checks fail first."""
    from entitysam.io.files import as_stem, check_folder

    files = find_images(arguments.input)
    out = check_folder(arguments.out or Path("out") / as_stem(Path(arguments.input).stem))
    if arguments.weights not in (None, RANDOM) and not Path(arguments.weights).is_file():
        raise FileNotFoundError(f"no weight file {arguments.weights}")

    import entitysam.engine.build.promptable  # noqa: F401  (SAM 2.1 behind E-SAM)
    from entitysam.cli.shared.progress import note, warn
    from entitysam.cli.shared.resume import ResumeFolder, input_identity
    from entitysam.config import load_config, to_dict
    from entitysam.esam.results import ImageResults
    from entitysam.io.result_folder import hold_folder
    from entitysam.registry import METHODS, build

    check_results(files, out)
    node = to_dict(load_config("esam", overrides(arguments)))["model"]
    method = build(METHODS, node, "model")
    if node["segmenter"]["weights"] == RANDOM:
        warn(f"SAM {node['segmenter']['model']} has random weights: its masks are meaningless")
    identity = {"input": input_identity(arguments.input), "model": node, "explain": arguments.explain}
    started = time.monotonic()
    with hold_folder(out):
        resume = ResumeFolder(out, identity, arguments.resume)
        results = ImageResults(out, resume.path / "images")
        try:
            failed = segment_files(files, method, results, arguments)
            entities = results.finish(files)
        except BaseException:
            if len(results):
                note(f"{out}: unfinished; the same command with --resume continues")
            else:
                resume.remove()
            raise
        resume.remove()
    done = len(files) - len(failed)
    print(f"{done} of {len(files)} images, {entities} entities in {time.monotonic() - started:.1f} s: {out}")
    return 1 if failed else 0


def find_images(source: str) -> list[Path]:
    """The image files of INPUT.

    Raises:
        InputError: no images, or two files whose results would have the same name.
    """
    from entitysam.io.readers.base import InputError
    from entitysam.io.readers.images import SUFFIXES, list_images

    files = [Path(source)] if Path(source).is_file() else list_images(source)
    if not files:
        kind = f"no images ({', '.join(SUFFIXES)}) there" if Path(source).is_dir() else "no such file or folder"
        raise InputError(f"{source}: {kind}")
    seen: dict[str, Path] = {}
    for file in files:
        if file.stem in seen:
            raise InputError(f"{source}: {seen[file.stem]} and {file} would have the same results, {file.stem}.png")
        seen[file.stem] = file
    return files


def check_results(files: list[Path], out: Path) -> None:
    """Checks that no input is one of the files that the run writes.

    Raises:
        OutputError: an input would be overwritten.
    """
    from entitysam.esam.results import EXPLAIN, MASKS, OVERLAYS
    from entitysam.io.files import OutputError

    inputs = {(file.stat().st_dev, file.stat().st_ino) for file in files}  # equal for all names of a file
    for file in files:
        steps = (out / EXPLAIN / file.stem).glob("*.jpg")
        for result in (out / MASKS / f"{file.stem}.png", out / OVERLAYS / f"{file.stem}.jpg", *steps):
            if result.exists() and (result.stat().st_dev, result.stat().st_ino) in inputs:
                raise OutputError(f"{result}: is an input and would be overwritten; choose another folder with -o")


def overrides(arguments: argparse.Namespace) -> list[str]:
    """Options as `key=value` overrides of the config; overrides of the command line come last and take precedence."""
    values = [f"model.segmenter.model={arguments.model}", f"model.segmenter.device={arguments.device}"]
    if arguments.model.startswith("sam2"):
        values.append("model.segmenter.name=sam2")
    if arguments.weights is not None:
        values.append(f"model.segmenter.weights={json.dumps(arguments.weights)}")
    if arguments.dtype is not None:
        values.append(f"model.segmenter.amp={arguments.dtype}")
    if arguments.method == "sam":
        values += [f"model.{module}.enabled=false" for module in MODULES]
    return values + arguments.overrides


def segment_files(
    files: list[Path], method: "ESAM", results: "ImageResults", arguments: argparse.Namespace
) -> list[Path]:
    """Segments the images that are not finished yet and returns those that failed.

    A failing image among several is reported and skipped.

    Raises:
        ValueError: the only image fails.
    """
    from entitysam.cli.shared.progress import frame_bar, warn
    from entitysam.esam.segmenter import Trace
    from entitysam.io.readers.images import read_image

    failed = []
    with frame_bar("segmenting", len(files), arguments.quiet) as bar:
        for file in files:
            if not results.is_finished(file.stem):
                try:
                    image = read_image(file)
                    trace = Trace() if arguments.explain else None
                    found = method.segment(image, trace)
                except ValueError as error:
                    message = str(error) if file.name in str(error) else f"{file.name}: {error}"
                    if len(files) == 1:
                        raise ValueError(message) from error
                    warn(message)
                    failed.append(file)
                else:
                    results.add(file, image, found, trace)
            bar.step()
    return failed
