"""A network compiled by `torch.compile`, with static shapes: three graphs without breaks."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from entitysam.inference.wrapped import WrappedModel
from entitysam.registry import ConfigError
from entitysam.structures import FrameOutput


class CompiledModel(WrappedModel):
    """A network behind the interface `inference.segmenter.FrameModel` whose `encode` and `propagate` are compiled.

    There is one graph for `encode`, one for a frame without memory and one for a later frame. The latter takes a bank of full
    length: memories that are not there yet are zeros that the attention leaves out (`VideoState.filled`), so that a video
    needs no graph per length of its history. States are those of the network. Each graph is compiled when it is first called.

    With a level of speed that leaves dormant entities out, `propagate` is not compiled: their number varies.

    Args:
        model: an `EntitySAM` in eval mode.
        backend: of `torch.compile`.

    Raises:
        ConfigError: another kind of model.
    """

    def __init__(self, model: Any, backend: str | Callable = "inductor") -> None:
        if not isinstance(model, torch.nn.Module) or not hasattr(model, "memory"):
            raise ConfigError("inference.compile: only a network of PyTorch can be compiled, not an exported one")
        super().__init__(model)
        network: Any = model  # an EntitySAM
        options: dict[str, Any] = {"backend": backend, "fullgraph": True, "dynamic": False}
        self._encode = torch.compile(network.encode, **options)
        self._compiles_propagate = not network.speed.prune
        # Two functions, because a function has a limited number of graphs.
        self._first = torch.compile(lambda *inputs: network.propagate(*inputs), **options)
        self._later = torch.compile(lambda *inputs: network.propagate(*inputs), **options)

    def encode(self, images: Tensor) -> list[Any]:
        """Features of frames [B, 3, S, S], one after the other: a graph has one batch size."""
        return [self._encode(image[None])[0] for image in images]

    def propagate(self, features: Any, state: Any) -> tuple[FrameOutput, Any]:
        """As the network's."""
        if not self._compiles_propagate:
            return self.model.propagate(features, state)
        there, frames = len(state.memories), state.frames + 1
        state = replace(state, frames=0)  # a number would be a constant of the graph
        if not there:
            output, after = self._first(features, state)
            return output, replace(after, frames=frames)
        length = self.model.memory.num_memories
        # Different tensors, because a graph is made for inputs that are, or are not, one and the same.
        empty = tuple(torch.zeros_like(state.memories[0]) for _ in range(length - there))
        filled = torch.arange(length, device=self.device) < there
        output, after = self._later(features, replace(state, memories=state.memories + empty, filled=filled))
        return output, replace(after, frames=frames, memories=after.memories[: there + 1])
