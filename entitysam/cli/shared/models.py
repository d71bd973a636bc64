"""From `--model` and `--weights` to a network that is ready to run."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from entitysam.checkpoint import CheckpointError, describe, fetch_weights, load_weights, read_weights
from entitysam.cli.shared.arguments import RANDOM
from entitysam.config import shipped_folder
from entitysam.engine.build import ALIASES, build_model, model_config, pick_device
from entitysam.models.entity_sam import EntitySAM
from entitysam.registry import ConfigError

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth")


@dataclass
class OpenedModel:
    """A model in eval mode on its device.

    Attributes:
        model: the network.
        weights: the file its weights came from; None = random ones.
        identity: what decides the model's output, as plain data: equal for equal models.
    """

    model: EntitySAM
    weights: Path | None
    identity: dict[str, Any]


def open_model(name: str, weights: str | None, device: str, overrides: dict[str, Any]) -> OpenedModel:
    """Builds a model and loads its weights.

    Args:
        name: "tiny", "vit-s", "vit-l", or a weight file.
        weights: a file, "random", or None for those that belong to the name.
        device: as for `pick_device`.
        overrides: of the model's config node.

    Raises:
        ConfigError: unknown model, key or device.
        CheckpointError, FileNotFoundError: weights that cannot be had, read or used.
    """
    target = pick_device(device)
    file: Path | None
    if Path(name).suffix in WEIGHT_SUFFIXES or Path(name).is_file():
        if weights is not None:
            raise ConfigError(f"two weight files: --model {name} and --weights {weights}")
        file = Path(name)
        config = config_of(file)
    else:
        config = model_config(name)
        file = weight_file(ALIASES.get(name, name), weights)
    torch.manual_seed(0)  # random weights are the same ones in every run
    model = build_model(config, **overrides)
    if not isinstance(model, EntitySAM):
        raise ConfigError(
            f"--model {name}: a {type(model).__name__}, which segments nothing; `entitysam track` takes it"
        )
    identity: dict[str, Any] = {"config": config, "overrides": overrides, "weights": RANDOM}
    if file is not None:
        load_weights(model, file)
        status = file.stat()
        identity["weights"] = [str(file.resolve()), status.st_size, status.st_mtime_ns]
    return OpenedModel(model.to(target), file, identity)


def weight_file(name: str, weights: str | None) -> Path | None:
    """The file with the weights of a named model; None for random ones."""
    if weights is not None:
        return None if weights == RANDOM else Path(weights)
    if name == "tiny":
        shipped = tiny_weights()
        return shipped if shipped.is_file() else None
    return fetch_weights(name)


def tiny_weights() -> Path:
    """Where the weights of `tiny` are, if they came with this installation."""
    return shipped_folder("checkpoints") / "entitysam_tiny.safetensors"


def config_of(file: Path) -> dict[str, Any]:
    """The model config node of a weight file: the one inside, or that of the published model it holds.

    Raises:
        CheckpointError: it has none and is no published model.
    """
    state, config = read_weights(file)
    if config is not None:
        return config
    what = describe(state)
    published = re.search(r"\b(vits|vitl)\b", what)
    if published is None:
        raise CheckpointError(f"{file}: carries no config and seems to be {what}; use --model NAME --weights {file}")
    return model_config(published[1])
