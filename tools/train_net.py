"""Trains EntitySAM from a config.

Examples:
  python tools/train_net.py --config configs/tiny_scratch_stage1.yaml
  python tools/train_net.py --config configs/entitysam_vits_stage1.yaml --num-gpus 8 optim.lr=1e-4 train.batch_size=16
  python tools/train_net.py --config configs/entitysam_vits_stage1.yaml --num-gpus 8 --resume
  torchrun --nnodes 2 --nproc-per-node 8 ... tools/train_net.py --config configs/entitysam_vitl_stage1.yaml
  python tools/train_net.py --config configs/entitysam_vits_stage1.yaml --num-gpus 8 --engine detectron2
"""

import argparse
import importlib
import sys
from collections.abc import Callable

from entitysam import distributed
from entitysam.config import load_config, to_dict, to_yaml
from entitysam.registry import ConfigError

ENGINES = {"native": "entitysam.engine.train.run", "detectron2": "entitysam.adapters.detectron2"}
INTERRUPTED = 143  # what a shell reports of a process that SIGTERM ended


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--config", required=True, help="a YAML file, or a name below configs/")
    result.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the config, e.g. optim.lr=1e-4")
    result.add_argument(
        "--num-gpus", type=int, default=1, help="processes on this machine (on a CPU: train.device=cpu)"
    )
    result.add_argument(
        "--resume", action="store_true", help="continue from the newest checkpoint in output_dir, if any"
    )
    result.add_argument("--print-config", action="store_true", help="print the composed config and exit")
    result.add_argument(
        "--dry-run", action="store_true", help="build everything and train on one clip without writing anything"
    )
    result.add_argument("--engine", choices=ENGINES, default="native", help="training loop (default: native)")
    return result


def main() -> None:
    arguments = parser().parse_intermixed_args()
    try:
        find_engine(arguments.engine)
        config = load_config(arguments.config, arguments.overrides)
        if arguments.print_config:
            print(to_yaml(config), end="")
            return
        distributed.launch(
            worker, arguments.num_gpus, (arguments.engine, to_dict(config), arguments.resume, arguments.dry_run)
        )
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"error: {error}")


def find_engine(name: str) -> Callable[[dict, bool, bool], bool]:
    """The `run` of an engine.

    Raises:
        ConfigError: detectron2 is not installed.
    """
    try:
        return importlib.import_module(ENGINES[name]).run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("entitysam"):
            raise
        raise ConfigError(
            f"--engine {name}: '{error.name}' is not installed; "
            f"pip install --no-build-isolation 'entitysam[{name}]' (TRAIN.md, detectron2)"
        ) from error


def worker(engine: str, config: dict, resume: bool, dry_run: bool) -> None:
    if not find_engine(engine)(config, resume, dry_run):
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
