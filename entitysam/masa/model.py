"""MASA (Li et al., Matching Anything by Segmenting Anything, CVPR 2024): instance embeddings learned from still images."""

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass
class MasaFeatures:
    """What the network keeps of one image; embeddings and proposals are read from it.

    Attributes:
        maps: fused pyramid, finest first: [1, C, h_i, w_i] each.
        scale: pixels of the network's input per pixel of the image.
        image_size: (H, W) of the image in pixels.
    """

    maps: list[Tensor]
    scale: float
    image_size: tuple[int, int]


class MASA(nn.Module):
    """Backbone, adapter, detection head and track head."""

    def encode(self, image: Tensor) -> MasaFeatures:
        """Features of one image.

        Args:
            image: float or uint8 [3, H, W] RGB in 0..255.
        """
        raise NotImplementedError

    def embed(self, features: MasaFeatures, boxes: Tensor) -> Tensor:
        """Embeddings [N, 256], not normalised, of boxes [N, 4] (x1, y1, x2, y2) in pixels of the image."""
        raise NotImplementedError

    def propose(self, features: MasaFeatures, limit: int = 300) -> tuple[Tensor, Tensor]:
        """Class-agnostic proposals: boxes [N, 4] in pixels of the image and scores [N] in 0..1, best first."""
        raise NotImplementedError
