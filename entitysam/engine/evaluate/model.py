"""The model of an evaluation: from a weight file and the `model` group of the config."""

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from entitysam.checkpoint import CheckpointError, describe, load_weights, read_weights
from entitysam.config import to_dict
from entitysam.engine.build import build_model
from entitysam.models.entity_sam import EntitySAM
from entitysam.registry import ConfigError

RANDOM = "random"


def open_model(config: DictConfig, weights: str) -> EntitySAM:
    """The model of a weight file, in eval mode on the CPU; `model` of the config goes over what the file says of itself.

    Args:
        config: the whole `Config`.
        weights: a file, or "random" for the weights of the seed.

    Raises:
        ConfigError: no weights, or nothing says what model it is.
        CheckpointError, FileNotFoundError: weights that cannot be read or do not fit.
    """
    given = to_dict(config)["model"]
    if not weights:
        raise ConfigError("no weights; give --weights FILE, or --predictions DIR, or --baseline NAME")
    if weights == RANDOM:
        if not given:
            raise ConfigError("model: missing; with random weights name one, e.g. model=tiny")
        torch.manual_seed(config.seed)
        return build_model(given)
    state, embedded = read_weights(weights)
    if not given and embedded is None:
        raise CheckpointError(f"{weights}: carries no config and seems to be {describe(state)}; add e.g. model=vits")
    node = OmegaConf.merge(OmegaConf.create(embedded or {}), OmegaConf.create(given))
    model = build_model(OmegaConf.to_container(node))  # type: ignore[arg-type]
    load_weights(model, weights)
    return model


def weights_identity(weights: str) -> Any:
    """What tells whether a weight file is still the same: path, size and time."""
    path = Path(weights)
    if not path.is_file():
        return weights
    status = path.stat()
    return [str(path.resolve()), status.st_size, status.st_mtime_ns]
