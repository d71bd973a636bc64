"""DualEncoder: SAM 2's image features beside those of a semantic encoder (paper section 3.3.1, Figure 2a left)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from entitysam.registry import MODELS


@dataclass(frozen=True)
class ImageFeatures:
    """Features of a frame before memory conditioning; the same for every entity.

    Leading dimensions, written `..`, are batch dimensions: none for one frame.

    Attributes:
        stride4: [.., C, S/4, S/4] high-resolution map for the mask head.
        stride8: [.., C, S/8, S/8] likewise.
        cells: [.., hw, C] the stride-16 map, row-major.
        semantic: [.., hw, C] the projected semantic tokens; None without a semantic encoder.
    """

    stride4: Tensor
    stride8: Tensor
    cells: Tensor
    semantic: Tensor | None = None

    @property
    def size(self) -> int:
        """Side h of the feature grid in cells."""
        return round(self.cells.shape[-2] ** 0.5)

    def map(self, change: Callable[[Tensor], Tensor]) -> "ImageFeatures":
        """Applies a function to every map."""
        semantic = None if self.semantic is None else change(self.semantic)
        return ImageFeatures(change(self.stride4), change(self.stride8), change(self.cells), semantic)


@MODELS.register("own_features")
class SharedFeatures(nn.Module):
    """Placeholder for a semantic encoder: SAM 2's own stride-16 features are used again (Table 9, row SAM 2)."""

    def __init__(self, channels: int = 256):
        super().__init__()
        self.channels = channels


class DualEncoder(nn.Module):
    """Both encoders, the projection of the semantic tokens and the fusion of the two maps.

    Args:
        image_encoder: images -> maps of stride 4, 8, 16 with `channels` channels.
        semantic_encoder: (images, h) -> [B, hw, its own channels]; None uses SAM 2's features alone.
        channels: C.
    """

    def __init__(self, image_encoder: nn.Module, semantic_encoder: nn.Module | None, channels: int = 256):
        super().__init__()
        self.image_encoder = image_encoder
        self.semantic_encoder = semantic_encoder
        self.channels = channels
        if semantic_encoder is not None:
            self.semantic_projector = nn.Linear(int(semantic_encoder.channels), channels)  # type: ignore[arg-type]
        self.fusion = nn.Linear(self.enhanced_channels, channels)

    @property
    def enhanced_channels(self) -> int:
        """Channels of the enhanced features: 2C, or C without a semantic encoder."""
        return self.channels if self.semantic_encoder is None else 2 * self.channels

    def encode(self, images: Tensor) -> list[ImageFeatures]:
        """Normalised images [B, 3, S, S] -> the features of each."""
        batch = self.encode_batch(images)
        maps = [batch.stride4, batch.stride8, batch.cells, batch.semantic]
        return [ImageFeatures(*of_image) for of_image in zip(*(m.unbind() for m in maps if m is not None))]

    def encode_batch(self, images: Tensor) -> ImageFeatures:
        """Normalised images [B, 3, S, S] -> features with the leading dimension B."""
        stride4, stride8, stride16 = self.image_encoder(images)
        cells = stride16.flatten(2).transpose(1, 2)  # [B, C, h, w] -> [B, hw, C]
        return ImageFeatures(stride4, stride8, cells, self._semantic(images, cells, stride16.shape[-1]))

    def _semantic(self, images: Tensor, cells: Tensor, size: int) -> Tensor | None:
        """Projected semantic tokens [B, hw, C]."""
        if self.semantic_encoder is None:
            return None
        if isinstance(self.semantic_encoder, SharedFeatures):
            return self.semantic_projector(cells)
        return self.semantic_projector(self.semantic_encoder(images, size))

    def fuse(self, conditioned: Tensor, semantic: Tensor | None) -> Tensor:
        """The decoder's image embedding: a linear map of concat(conditioned, semantic).

        Args:
            conditioned: [.., Q or 1, hw, C].
            semantic: [.., hw, C] or None.

        Returns:
            [.., Q or 1, hw, C].
        """
        weight, bias = self.fusion.weight, self.fusion.bias
        if semantic is None:
            return F.linear(conditioned, weight, bias)
        # The linear map is split into its two halves: the semantic half is the same for all entities and computed once.
        own, shared = weight.split(self.channels, dim=1)  # [C, C] each
        return F.linear(conditioned, own) + F.linear(semantic, shared, bias).unsqueeze(-3)
