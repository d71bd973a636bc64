"""DualEncoder: SAM 2's features beside a semantic encoder's (paper section 3.3.1, Figure 2a left)."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from entitysam.registry import MODELS


@dataclass(frozen=True)
class ImageFeatures:
    """What is known of a frame before anything is remembered; the same for every entity.

    Attributes:
        stride4: [C, S/4, S/4], stride8: [C, S/8, S/8]: high-resolution maps for the mask head.
        cells: [hw, C] the stride-16 map, row-major.
        semantic: [hw, C] the projected semantic tokens; None without a semantic encoder.
    """

    stride4: Tensor
    stride8: Tensor
    cells: Tensor
    semantic: Tensor | None = None

    @property
    def size(self) -> int:
        """Cells per side of the feature grid, h."""
        return round(self.cells.shape[0] ** 0.5)


@MODELS.register("own_features")
class SharedFeatures(nn.Module):
    """ "Semantic encoder" that hands on SAM 2's own stride-16 features (Table 9, row SAM 2 beside itself)."""

    def __init__(self, channels: int = 256):
        super().__init__()
        self.channels = channels


class DualEncoder(nn.Module):
    """Both encoders, the projection of the second and the fusion of the two.

    Args:
        image_encoder: images -> maps of stride 4, 8, 16 with `channels` channels.
        semantic_encoder: (images, h) -> [B, hw, its own channels], or None for SAM 2's features alone.
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
        return [ImageFeatures(*maps) for maps in zip(*(maps.unbind() for maps in self.encode_together(images)))]

    def encode_together(self, images: Tensor) -> tuple[Tensor, ...]:
        """Normalised images [B, 3, S, S] -> the fields of `ImageFeatures`, each with a leading B; `semantic` if there is one."""
        stride4, stride8, stride16 = self.image_encoder(images)
        cells = stride16.flatten(2).transpose(1, 2)
        semantic = self._semantic(images, cells, stride16.shape[-1])
        return (stride4, stride8, cells) if semantic is None else (stride4, stride8, cells, semantic)

    def _semantic(self, images: Tensor, cells: Tensor, size: int) -> Tensor | None:
        if self.semantic_encoder is None:
            return None
        if isinstance(self.semantic_encoder, SharedFeatures):
            return self.semantic_projector(cells)
        return self.semantic_projector(self.semantic_encoder(images, size))

    def fuse(self, conditioned: Tensor, semantic: Tensor | None) -> Tensor:
        """The decoder's image embedding: linear map of concat(conditioned, semantic).

        Args:
            conditioned: [Q or 1, hw, C]; semantic: [hw, C] or None, projected once for all entities.

        Returns:
            [Q or 1, hw, C].
        """
        weight, bias = self.fusion.weight, self.fusion.bias
        if semantic is None:
            return F.linear(conditioned, weight, bias)
        own, shared = weight.split(self.channels, dim=1)
        return F.linear(conditioned, own) + F.linear(semantic, shared, bias)
