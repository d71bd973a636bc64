"""`--model`, `--weights` and their options: checked before torch is imported, then opened."""

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from entitysam.errors import ConfigError
from entitysam.shipped import (
    HUB,
    RANDOM,
    TINY,
    check_model_name,
    default_weights,
    is_exported,
    is_weight_file,
    shipped_folder,
)

if TYPE_CHECKING:
    from entitysam.engine.build import OpenedModel

EXPORTED_DEVICES = ("tensorrt", "openvino")  # besides, of exported models
DEVICES = re.compile(r"auto|(cpu|cuda|mps|xpu|hpu|npu|mtia|meta)(:\d+)?")


def check_model_options(arguments: argparse.Namespace) -> None:
    """Refuses options of `add_model_arguments` that cannot work, within a fraction of a second.

    A published model whose weights are neither on the disk nor can be downloaded is refused here, too.

    Raises:
        ConfigError: unknown model or device, a value out of its range, two weight files.
        CheckpointError: weights that cannot be downloaded.
        FileNotFoundError: no such weight file.
    """
    name, weights = arguments.model, arguments.weights
    if is_exported(name):
        if weights is not None or arguments.image_size is not None:
            raise ConfigError(f"{name}: an exported model has its weights and its image size")
    elif is_weight_file(name):
        if weights is not None:
            raise ConfigError(f"two weight files: --model {name} and --weights {weights}")
        weights = name
    else:
        name = check_model_name(name)
        if weights is None and name in HUB:
            default_weights(name)
    if weights not in (None, RANDOM) and not Path(weights).is_file():
        raise FileNotFoundError(f"no weight file {weights}")
    if not DEVICES.fullmatch(arguments.device) and not (is_exported(name) and arguments.device in EXPORTED_DEVICES):
        raise ConfigError(f"device '{arguments.device}' is not there (auto, cpu, cuda, cuda:1, mps)")
    size = arguments.image_size
    if size is not None and (size <= 0 or size % 32):
        raise ConfigError(f"model.image_size: must be a positive multiple of 32, not {size}")


def open_model(name: str, weights: str | None, device: str, overrides: dict[str, Any]) -> "OpenedModel":
    """The EntitySAM of a command line.

    Args:
        name: "tiny", "vit-s", "vit-l", a weight file, or the folder of an exported model.
        weights: a file, "random", or None for those that belong to the name.
        device: see `engine.build.pick_device`.
        overrides: of the model's config node.

    Raises:
        ConfigError, CheckpointError, FileNotFoundError: see `engine.build.open_model`.
    """
    from entitysam.engine import build

    return build.open_model(name, weights, device=device, overrides=overrides, kind="entity_sam")


def tiny_weights() -> Path:
    """The place of the shipped weights of `tiny`; the file may be missing from an installation."""
    return shipped_folder("checkpoints") / TINY["tiny"]
