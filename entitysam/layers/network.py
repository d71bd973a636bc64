"""Base class of the networks: normalisation of pixels, and parts that are not trained."""

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

PIXEL_MEAN = (0.485, 0.456, 0.406)  # of ImageNet, RGB in 0..1
PIXEL_STD = (0.229, 0.224, 0.225)

Self = TypeVar("Self", bound="Network")


class Network(nn.Module):
    """A network over RGB images with frozen parts.

    Attributes:
        frozen: dotted names of the parts that stay in eval mode and outside the graph (quirk 6).
    """

    frozen: tuple[str, ...] = ()
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(PIXEL_STD).view(3, 1, 1), persistent=False)

    def freeze(self, parts: Sequence[str]) -> None:
        """Excludes parts from training.

        Raises:
            AttributeError: no part has that name.
        """
        self.frozen = tuple(parts)
        for name in self.frozen:
            self.get_submodule(name).requires_grad_(False)

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def train(self: Self, mode: bool = True) -> Self:
        """Training mode for all but the frozen parts."""
        super().train(mode)
        for name in self.frozen:
            self.get_submodule(name).eval()
        return self

    def normalise(self, pixels: Tensor) -> Tensor:
        """RGB [..., 3, H, W] in 0..255, of any dtype -> normalised, in the dtype of the network."""
        return ((pixels.float() / 255 - self.pixel_mean) / self.pixel_std).to(self.pixel_mean.dtype)
