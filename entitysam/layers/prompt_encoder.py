"""SAM's prompt encoder, reduced to points."""

import torch
from torch import Tensor, nn

from entitysam.layers.position import RandomFourierPosition


class PromptEncoder(nn.Module):
    """One positive point per entity -> two sparse tokens: the point and SAM's padding point.

    Args:
        channels: C of the tokens.
    """

    def __init__(self, channels: int = 256):
        super().__init__()
        self.position = RandomFourierPosition(channels)
        self.positive = nn.Embedding(1, channels)
        self.padding = nn.Embedding(1, channels)
        self.no_mask = nn.Embedding(1, channels)

    def forward(self, points: Tensor, image_size: int) -> Tensor:
        """Points (x, y) [.., Q, 2] in pixels of the S x S input -> sparse tokens [.., Q, 2, C]."""
        code = self.position((points + 0.5) / image_size) + self.positive.weight  # pixel centres; [.., Q, C]
        # SAM adds a padding point where there is no box.
        return torch.stack([code, self.padding.weight.expand_as(code)], dim=-2)
