"""The base of networks around a network."""

from typing import Any

import numpy as np
from torch import Tensor

from entitysam.structures import FrameOutput


class WrappedModel:
    """A `FrameModel` that does everything as another one does it; a subclass overrides what it changes.

    Args:
        model: the network inside.
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    @property
    def device(self) -> Any:
        return self.model.device

    @property
    def num_entities(self) -> int:
        return self.model.num_entities

    def initial_state(self) -> Any:
        return self.model.initial_state()

    def prepare(self, frame: np.ndarray) -> Tensor:
        return self.model.prepare(frame)

    def encode(self, images: Tensor) -> Any:
        return self.model.encode(images)

    def propagate(self, features: Any, state: Any) -> tuple[FrameOutput, Any]:
        return self.model.propagate(features, state)
