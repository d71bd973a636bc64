"""Exports a model as four graphs (encode, first, memorize, propagate) that run outside PyTorch.

The folder holds the graphs, manifest.json (shapes, hashes, preprocessing in words, largest difference from PyTorch) and, for
ONNX, example.py, which runs them with onnxruntime and NumPy alone. `entitysam segment --model FOLDER` runs them, too.

examples:
  entitysam export -o tiny_onnx
  entitysam export --model vit-s --image-size 512 -o vits_onnx
  entitysam export --store int8 -o tiny_int8                          # files of a quarter to a half of the size
  entitysam export --to torch -o tiny_pt2                            # torch.export programs
  entitysam segment clip.mp4 --model tiny_onnx -o out/clip
"""

import argparse
from pathlib import Path

from entitysam.cli.shared.arguments import add_model_arguments, output_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--out", type=output_folder, required=True, metavar="FOLDER", help="a new folder")
    parser.add_argument("--to", choices=("onnx", "torch"), default="onnx", help="format (default: onnx)")
    parser.add_argument("--store", choices=("fp32", "fp16", "int8"), default="fp32",
                        help="weights in the ONNX files; the arithmetic stays fp32 (default: fp32)")  # fmt: skip
    add_model_arguments(parser)
    parser.set_defaults(takes_overrides=True)


def run(arguments: argparse.Namespace) -> int:
    """Opens the model, exports it, and prints the largest difference of every graph."""
    from entitysam.cli.shared.models import check_model_options, open_model

    check_model_options(arguments)

    from entitysam.cli.shared.progress import warn
    from entitysam.cli.shared.settings import read_settings
    from entitysam.errors import ConfigError
    from entitysam.export.writer import export

    if arguments.dtype not in (None, "fp32") or arguments.device not in ("auto", "cpu"):
        raise ConfigError("export: graphs are exported in fp32 on the CPU; the runtime chooses the device")
    overrides, _ = read_settings(arguments)
    opened = open_model(arguments.model, arguments.weights, "cpu", overrides)
    if opened.weights is None:
        warn(f"{arguments.model} is exported with random weights")
    manifest = export(opened.model, Path(arguments.out), arguments.to, opened.fingerprint, arguments.store)
    for name, differences in manifest.parity.items():
        print(f"{manifest.graphs[name].file}: largest difference from PyTorch {max(differences.values()):.1e}")
    print(f"{arguments.out}: {manifest.image_size} x {manifest.image_size}, {manifest.num_entities} entities")
    return 0
