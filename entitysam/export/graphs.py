"""The four graphs of a network. Shapes are fixed: S, Q and the M memories of a padded bank.

encode:    image -> features
first:     features -> output of a frame without memory (the first one)
propagate: features, points, bank, filled -> output of a later frame
memorize:  cells, mask_logits -> the frame's memory

The bank, the merge and hole filling stay outside.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from entitysam.models.dual_encoder import ImageFeatures
from entitysam.models.entity_sam import EntitySAM
from entitysam.models.memory import Memory, VideoState
from entitysam.registry import ConfigError

FEATURES = ("stride4", "stride8", "cells", "semantic")
OUTPUTS = ("mask_logits", "iou", "entity_logits", "score", "next_points")


@dataclass(frozen=True)
class Graph:
    """A graph to export.

    Attributes:
        name: of its file.
        module: takes the inputs in order and returns a tuple.
        inputs: name -> example, whose shape and type are those of the graph.
        outputs: names.
    """

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]


class Encode(nn.Module):
    """image float32 [1, 3, S, S], normalised -> the maps of `ImageFeatures` without batch dimension."""

    def __init__(self, network: EntitySAM) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        features = self.network.encode(image)[0]
        return tuple(value for name in FEATURES if (value := getattr(features, name)) is not None)


class First(nn.Module):
    """The features of a frame -> its output without memory. `next_points` are the `points` of the next frame."""

    def __init__(self, network: EntitySAM) -> None:
        super().__init__()
        self.network = network

    def forward(self, *features: Tensor) -> tuple[Tensor, ...]:
        return _output(self.network, features, self.network.initial_state())


class Propagate(nn.Module):
    """Features, points [Q, 2], bank [M, Q, hw, Cm] newest first, filled bool [M] -> the output of a frame."""

    def __init__(self, network: EntitySAM) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        *features, points, bank, filled = inputs
        return _output(self.network, features, VideoState(1, points, bank.unbind(0), filled=filled))


class Memorize(nn.Module):
    """cells [hw, C], mask_logits [Q, S/4, S/4] -> memory float32 [Q, hw, Cm]."""

    def __init__(self, network: EntitySAM) -> None:
        super().__init__()
        self.memory = network.memory

    def forward(self, cells: Tensor, mask_logits: Tensor) -> tuple[Tensor]:
        return (self.memory.write(cells, mask_logits, ())[0].float(),)  # type: ignore[operator]


def graphs(network: EntitySAM) -> Iterator[Graph]:
    """The graphs with example inputs.

    Args:
        network: in eval mode, float32, on the CPU.

    Raises:
        ConfigError: a network without memory.
    """
    if not isinstance(network.memory, Memory):
        raise ConfigError("export: the network has no memory (model.memory)")
    side = network.image_size
    image = torch.linspace(-2, 2, 3 * side * side).view(1, 3, side, side)
    encode = Encode(network)
    features = dict(zip(FEATURES, encode(image)))
    yield Graph("encode", encode, {"image": image}, tuple(features))
    first = First(network)
    output = dict(zip(OUTPUTS, first(*features.values())))
    yield Graph("first", first, features, OUTPUTS)
    memorize = Memorize(network)
    inputs = {"cells": features["cells"], "mask_logits": output["mask_logits"]}
    memory = memorize(*inputs.values())[0]
    yield Graph("memorize", memorize, inputs, ("memory",))
    age = torch.linspace(1, 0.5, network.memory.num_memories).view(-1, 1, 1, 1)
    bank = age * memory  # memories that differ, so that the parity of the example depends on `filled`
    filled = torch.arange(len(bank)) < max(1, len(bank) - 1)
    inputs = {**features, "points": output["next_points"], "bank": bank, "filled": filled}
    yield Graph("propagate", Propagate(network), inputs, OUTPUTS)


def _output(network: EntitySAM, features: tuple[Tensor, ...] | list[Tensor], state: VideoState) -> tuple[Tensor, ...]:
    """The tensors of `OUTPUTS`."""
    output, after = network.propagate(ImageFeatures(*features), state, remember=False)
    assert after.points is not None
    return output.mask_logits, output.iou, output.entity_logits, output.score, after.points
