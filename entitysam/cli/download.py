"""Fetches published weights through the hub's cache and checks every tensor's name and shape.

Without a network it says what to get by hand and where to put it.

examples:
  entitysam download vit-s
  entitysam download vit-l --dir checkpoints
"""

import argparse
import shutil
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="vit-s, vit-l or tiny")
    parser.add_argument(
        "--dir", type=Path, metavar="FOLDER", help="put a copy there (default: stay in the hub's cache)"
    )


def run(arguments: argparse.Namespace) -> int:
    import torch

    from entitysam.checkpoint import CheckpointError, fetch_weights, load_weights
    from entitysam.cli.shared.models import tiny_weights
    from entitysam.engine.build import ALIASES, build_model, model_config
    from entitysam.io.files import make_folder, whole_file

    name = ALIASES.get(arguments.model, arguments.model)
    config = model_config(name)
    folder = make_folder(arguments.dir) if arguments.dir else Path("checkpoints")
    if name == "tiny":
        file = tiny_weights()
        if not file.is_file():
            raise CheckpointError("the weights of 'tiny' come with entitysam, and this installation has none")
    else:
        file = fetch_weights(name, folder)
    with torch.device("meta"):
        model = build_model(config)
    report = load_weights(model, file)
    target = folder / (file.name if name == "tiny" else f"entitysam_{name}.pth")
    if arguments.dir and file.resolve() != target.resolve():
        with whole_file(target) as temporary:
            shutil.copyfile(file, temporary)
        file = target
    print(f"{name}: {report.loaded} tensors, all in order: {file}")
    return 0
