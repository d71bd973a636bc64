"""Track head: instance embeddings of boxes from the fused pyramid (supplement J.1)."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from entitysam.masa.adapter import convolution
from entitysam.masa.pooling import FINEST_SCALE, PyramidRoIAlign
from entitysam.registry import MODELS


@MODELS.register("track_head")
class TrackHead(nn.Module):
    """RoIAlign, convolutions with GroupNorm(32), a hidden linear layer and the embedding layer.

    Args:
        channels: C of the pyramid.
        strides: of the levels used, finest first.
        num_convs: number of convolutions (paper: 4).
        hidden: width of the hidden layer (published: 1024); 0 = no hidden layer.
        embedding: E, length of the embedding.
        finest_scale: see `PyramidRoIAlign`.
    """

    def __init__(
        self,
        channels: int,
        strides: Sequence[int],
        num_convs: int = 4,
        hidden: int = 1024,
        embedding: int = 256,
        finest_scale: float = FINEST_SCALE,
    ) -> None:
        super().__init__()
        self.pooling = PyramidRoIAlign(strides, finest_scale=finest_scale)
        self.convs = nn.Sequential(*(convolution(channels, channels, 3, "group", True) for _ in range(num_convs)))
        flat = channels * self.pooling.size**2
        self.hidden = nn.Linear(flat, hidden) if hidden else None
        self.embedding = nn.Linear(hidden or flat, embedding)
        for linear in filter(None, (self.hidden, self.embedding)):
            nn.init.zeros_(linear.bias)
        if self.hidden is not None:
            nn.init.xavier_uniform_(self.hidden.weight)
        nn.init.normal_(self.embedding.weight, std=0.01)

    def forward(self, maps: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Fused maps [B, C, h_i, w_i] and B tensors of boxes [N_b, 4] in input pixels -> [sum of N_b, E], not normalised."""
        x = self.convs(self.pooling(maps, boxes)).flatten(1)  # [N, C * 49]
        return self.embedding(x if self.hidden is None else F.relu(self.hidden(x)))
