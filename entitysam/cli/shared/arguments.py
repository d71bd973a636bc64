"""Options that several commands share. Neither torch nor any other large package is imported here."""

import argparse
from pathlib import Path

from entitysam.shipped import RANDOM


def add_model_arguments(parser: argparse.ArgumentParser, default: str = "tiny") -> None:
    """The options of the network: its name, weights, input size, device and precision."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        default=default,
        metavar="NAME|FILE|FOLDER",
        help=f"tiny, vit-s, vit-l, a weight file, or a folder of `entitysam export` (default: {default}; the weights of vit-s and vit-l are downloaded when needed)",
    )
    group.add_argument("--weights", metavar="FILE", help=f"weights for the named model, or '{RANDOM}'")
    group.add_argument("--image-size", type=int, metavar="S", help="side of the network's input, a multiple of 32")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    group.add_argument("--dtype", choices=("fp32", "bf16", "fp16"), help="of the network's arithmetic (default: fp32)")


def add_output_arguments(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """The result folder and the amount of output on the terminal."""
    help_text = f"folder for the results (default: {default or 'out/NAME, by the input'})"
    parser.add_argument(
        "-o", "--out", type=output_folder, default=default and Path(default), metavar="FOLDER", help=help_text
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar; the summary is still printed")


def output_folder(text: str) -> Path:
    """Converts the value of `-o`: an empty one would be the current folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError("an empty name; '.' is the current folder")
    return Path(text)
