"""Random weights that give every part of a model an effect on its output, to compare two implementations."""

import math

import torch
from torch import Tensor

from entitysam.checkpoint import to_published
from entitysam.models.entity_sam import EntitySAM


def random_weights(model: EntitySAM, seed: int = 0) -> dict[str, Tensor]:
    """Values for all tensors of a model under their published names; products keep the size of their inputs.

    The initial values of a new model do not serve: residual scales of 1e-6 and constant position tables hide errors.
    """
    generator = torch.Generator().manual_seed(seed)
    published = to_published(model.state_dict())
    return {name: _draw(name, published[name], generator) for name in sorted(published)}


def _draw(name: str, like: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(like.shape, generator=generator)
    kind = name.rpartition(".")[2]
    if kind == "gamma":
        return 0.5 + 0.1 * noise
    if like.ndim <= 1:
        return 1 + 0.1 * noise if kind == "weight" else 0.05 * noise
    if kind in ("weight", "in_proj_weight"):
        return noise / math.sqrt(math.prod(like.shape[1:]))
    return 0.3 * noise
