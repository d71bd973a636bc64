"""SAM's prompt encoder: points, boxes and masks -> tokens and a dense embedding."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from entitysam.layers.common import LayerNorm2d
from entitysam.layers.position import RandomFourierPosition

NEGATIVE, POSITIVE, TOP_LEFT, BOTTOM_RIGHT, PADDING = 0, 1, 2, 3, -1  # point labels of SAM and SAM 2
MASK_WIDTH = 16


@dataclass(frozen=True)
class Points:
    """Point prompts of B objects, P each; the two corners of a box are points as well.

    Attributes:
        xy: float32 [B, P, 2] (x, y) in pixels of the S x S input.
        labels: int64 [B, P]: 0 negative, 1 positive, 2 and 3 top-left and bottom-right corner of a box, -1 padding.
    """

    xy: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.xy)

    @property
    def count(self) -> int:
        """P."""
        return self.xy.shape[1]


class PromptEncoder(nn.Module):
    """Sparse tokens of points and a dense embedding of masks (Segment Anything, section 3, "Prompt encoder").

    Args:
        channels: C of the tokens.
    """

    labels: Any  # of nn.Embedding

    def __init__(self, channels: int = 256):
        super().__init__()
        self.position = RandomFourierPosition(channels)
        # Negative, positive, top-left, bottom-right.
        self.labels = nn.ModuleList(nn.Embedding(1, channels) for _ in range(4))
        self.padding = nn.Embedding(1, channels)
        self.no_mask = nn.Embedding(1, channels)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, MASK_WIDTH // 4, kernel_size=2, stride=2),
            LayerNorm2d(MASK_WIDTH // 4),
            nn.GELU(),
            nn.Conv2d(MASK_WIDTH // 4, MASK_WIDTH, kernel_size=2, stride=2),
            LayerNorm2d(MASK_WIDTH),
            nn.GELU(),
            nn.Conv2d(MASK_WIDTH, channels, kernel_size=1),
        )

    def sparse(self, points: Points, image_size: int) -> Tensor:
        """Tokens of the points and of the padding point that SAM appends.

        Returns:
            [B, P + 1, C].
        """
        code = self.position((points.xy + 0.5) / image_size)  # [B, P, C]
        of_label = torch.cat([embedding.weight for embedding in self.labels])[points.labels.clamp(min=0)]
        code = torch.where(points.labels[..., None] == PADDING, self.padding.weight, code + of_label)
        return torch.cat([code, self.padding.weight.expand(len(code), 1, -1)], dim=1)

    def dense(self, mask_logits: Tensor | None) -> Tensor:
        """Embedding that is added to the image cells.

        Args:
            mask_logits: [B, S/4, S/4], or None where no mask is given.

        Returns:
            [B, hw, C], or [1, 1, C] without a mask.
        """
        if mask_logits is None:
            return self.no_mask.weight[None]
        return self.mask_downscaling(mask_logits[:, None]).flatten(2).transpose(1, 2)
