"""SAM 2's upscaling of cells to stride 4 and its dot product with mask vectors, as matrix products."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MaskUpscaling(nn.Module):
    """Upscales cells to per-pixel embeddings at stride 4 and multiplies them with M vectors per entity.

    A transposed convolution with kernel and stride 2 is a linear map from every cell to its 2 x 2 children. The children
    stay beside their parent cell until the dot product, so that only M channels are rearranged into images.

    Args:
        channels: C of the cells.
    """

    group = 10  # entities at a time: their embeddings at stride 4 are the decoder's largest activations

    def __init__(self, channels: int):
        super().__init__()
        self.conv_s1 = nn.Conv2d(channels, channels // 4, 1)
        self.conv_s0 = nn.Conv2d(channels, channels // 8, 1)
        self.upscale1 = nn.ConvTranspose2d(channels, channels // 4, kernel_size=2, stride=2)
        self.norm = nn.LayerNorm(channels // 4, eps=1e-6)
        self.upscale2 = nn.ConvTranspose2d(channels // 4, channels // 8, kernel_size=2, stride=2)

    def forward(self, cells: Tensor, vectors: Tensor, stride8: Tensor, stride4: Tensor) -> Tensor:
        """Mask logits of every vector.

        Args:
            cells: [.., Q, hw, C].
            vectors: [.., Q, M, C/8].
            stride8, stride4: [.., C, S/8, S/8] and [.., C, S/4, S/4] maps of the image encoder.

        Returns:
            [.., Q, M, S/4, S/4].
        """
        size = stride8.shape[-1] // 2
        fine8, fine4 = self._beside_parents(stride8, stride4)
        groups = zip(cells.split(self.group, dim=-3), vectors.split(self.group, dim=-3))
        # [.., Q, hw * 16, M]: the 4 x 4 pixels of each cell, as 2 x 2 children of 2 x 2 children
        logits = torch.cat([self._dot(some, vector, fine8, fine4) for some, vector in groups], dim=-3)
        num_vectors = logits.shape[-1]
        logits = logits.view(-1, size, size, 2, 2, 2, 2, num_vectors)  # [.. * Q, h, w, row, column, row, column, M]
        logits = logits.permute(0, 7, 1, 3, 5, 2, 4, 6)  # [.. * Q, M, h, row, row, w, column, column]
        return logits.reshape(*cells.shape[:-2], num_vectors, 4 * size, 4 * size)

    def _beside_parents(self, stride8: Tensor, stride4: Tensor) -> tuple[Tensor, Tensor]:
        """High-resolution maps in the order of the children: [.., 1, hw, 4, C/4] and [.., 1, hw, 4, 4, C/8]."""
        size, lead = stride8.shape[-1] // 2, stride8.shape[:-3]
        fine8 = self.conv_s1(stride8.flatten(0, -4) if lead else stride8[None])
        fine4 = self.conv_s0(stride4.flatten(0, -4) if lead else stride4[None])
        fine8 = fine8.unflatten(-1, (size, 2)).unflatten(-3, (size, 2))  # [B, C/4, h, row, w, column]
        fine8 = fine8.permute(0, 2, 4, 3, 5, 1)  # [B, h, w, row, column, C/4]
        fine4 = fine4.unflatten(-1, (size, 2, 2)).unflatten(-4, (size, 2, 2))  # [B, C/8, h, r, r, w, c, c]
        fine4 = fine4.permute(0, 2, 5, 3, 6, 4, 7, 1)  # [B, h, w, row, column, row, column, C/8]
        fine8 = fine8.reshape(*lead, 1, size * size, 4, fine8.shape[-1])
        return fine8, fine4.reshape(*lead, 1, size * size, 4, 4, fine4.shape[-1])

    def _dot(self, cells: Tensor, vectors: Tensor, fine8: Tensor, fine4: Tensor) -> Tensor:
        """[.., q, hw, C], [.., q, M, C/8] -> [.., q, hw * 16, M]."""
        x = F.gelu(self.norm(self._children(cells, self.upscale1) + fine8))  # [.., q, hw, 4, C/4]
        x = F.gelu(self._children(x, self.upscale2) + fine4)  # [.., q, hw, 4, 4, C/8]
        return torch.matmul(x.flatten(-4, -2), vectors.to(x.dtype).transpose(-1, -2))

    @staticmethod
    def _children(x: Tensor, upscale: nn.ConvTranspose2d) -> Tensor:
        """[.., C] -> [.., 4, C']: the 2 x 2 outputs of a transposed convolution, row by row."""
        weight = upscale.weight.permute(2, 3, 1, 0).flatten(0, 2)  # [C, C', 2, 2] -> [2 * 2 * C', C]
        assert upscale.bias is not None
        return F.linear(x, weight, upscale.bias.repeat(4)).unflatten(-1, (4, -1))
