"""Downloads published weights into the hub's cache and checks the name and shape of every tensor.

Without a connection it says which file to get by hand and where to put it.

examples:
  entitysam download vit-s
  entitysam download vit-l --dir checkpoints
"""

import argparse
import shutil
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="vit-s, vit-l or tiny")
    parser.add_argument("--dir", type=Path, metavar="FOLDER", help="put a copy there (default: only the hub's cache)")


def run(arguments: argparse.Namespace) -> int:
    """Fetches the file before torch is imported: a missing connection is reported at once."""
    from entitysam import shipped
    from entitysam.errors import CheckpointError
    from entitysam.io.files import make_folder, whole_file

    name = shipped.check_model_name(arguments.model)
    folder = make_folder(arguments.dir) if arguments.dir else Path("checkpoints")
    if name in shipped.TINY:
        file = shipped.default_weights(name)
        if file is None:
            raise CheckpointError(f"the weights of '{name}' come with entitysam, and this installation has none")
        target = folder / file.name
    else:
        file = shipped.fetch_weights(name, folder)
        target = folder / f"entitysam_{name}.pth"

    import torch

    from entitysam.checkpoint import load_weights
    from entitysam.engine.build import build_model, model_config

    with torch.device("meta"):  # shapes alone
        model = build_model(model_config(name))
    report = load_weights(model, file)
    if arguments.dir and file.resolve() != target.resolve():
        with whole_file(target) as temporary:
            shutil.copyfile(file, temporary)
        file = target
    print(f"{name}: {report.loaded} tensors, all in order: {file}")
    return 0
