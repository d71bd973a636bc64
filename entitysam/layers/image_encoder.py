"""SAM 2's image encoder: Hiera trunk (timm) and feature-pyramid neck."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from entitysam.layers.trunk import create_trunk
from entitysam.registry import MODELS


@MODELS.register("hiera")
class HieraEncoder(nn.Module):
    """Image -> maps of stride 4, 8 and 16 (SAM 2, section 4; `FpnNeck` with scalp 1).

    Args:
        trunk: timm name of the Hiera trunk, e.g. "sam2_hiera_small".
        channels: C of the maps.
        trunk_args: further arguments of the timm model, e.g. `stages` for a small one.
    """

    strides = (4, 8, 16)
    trunk: Any  # timm's models have no common type
    neck: Any

    def __init__(self, trunk: str, channels: int = 256, trunk_args: dict | None = None):
        super().__init__()
        self.trunk = create_trunk(trunk, trunk_args)
        del self.trunk.head
        self.trunk.blocks = nn.Sequential(*(HieraBlock(block) for block in self.trunk.blocks))
        nn.init.normal_(self.trunk.pos_embed, std=0.25)  # timm's start near 0 makes positions slow to learn
        widths = [info["num_chs"] for info in self.trunk.feature_info]
        # The coarsest level comes first, as in SAM 2's checkpoints.
        self.neck = nn.ModuleDict({"convs": nn.ModuleList(nn.Conv2d(w, channels, 1) for w in reversed(widths))})

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised images [B, 3, S, S] -> [B, C, S/4, S/4], [B, C, S/8, S/8], [B, C, S/16, S/16]."""
        # With channels-last input the patch embedding yields [B, h, w, C] in memory, as the blocks use it, without a copy.
        images = images.contiguous(memory_format=torch.channels_last)
        stride4, stride8, stride16, stride32 = self.trunk.forward_intermediates(images, intermediates_only=True)
        from32, from16, from8, from4 = self.neck["convs"]
        top_down = F.interpolate(from32(stride32).float(), scale_factor=2.0, mode="nearest")
        fused = from16(stride16)
        # Only the coarsest kept level receives the top-down path (SAM 2's fpn_top_down_levels [2, 3]).
        return from4(stride4), from8(stride8), fused + top_down.to(fused.dtype)


class HieraBlock(nn.Module):
    """A block of timm's Hiera trunk that does not compute the padding of its windows.

    timm and SAM 2 fill the last windows of a row or column with zeros, which attention then sees as cells whose keys and values are
    the biases. All of them are equal, so that one such cell with its score raised by the logarithm of their number gives the same
    result. At 256 pixels the stride-16 map has 256 cells, and its windows of 14 x 14 would have 784.

    Args:
        block: timm's; its parts are used under their own names.
    """

    def __init__(self, block: Any):
        super().__init__()
        self.norm1, self.attn, self.ls1, self.drop_path1 = block.norm1, block.attn, block.ls1, block.drop_path1
        self.norm2, self.mlp, self.ls2, self.drop_path2 = block.norm2, block.mlp, block.ls2, block.drop_path2
        self.proj, self.pool = block.proj, block.pool
        self.window = block.window_size if block.is_windowed else None  # (height, width); None = the whole map

    def forward(self, x: Tensor) -> Tensor:
        """[B, h, w, C] -> [B, h, w, C'], or half of h and w where the block pools its queries."""
        normed = self.norm1(x)
        shortcut = self._pooled(self.proj(normed)) if isinstance(self.proj, nn.Linear) else x
        x = shortcut + self.drop_path1(self.ls1(self._attend(normed)))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))

    def _pooled(self, x: Tensor) -> Tensor:
        return x if self.pool is None else self.pool(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    def _attend(self, x: Tensor) -> Tensor:
        """Attention within the windows: [B, h, w, C] -> [B, h', w', C']."""
        qkv = self.attn.qkv(x)  # [B, h, w, 3 C']
        if self.window is None:
            return self.attn.proj(self._windows(qkv, qkv.shape[1:3], 0))
        # Full windows, and the part of a window at the end.
        parts = []
        for rows in qkv.split(_whole_and_rest(qkv.shape[1], self.window[0]), dim=1):
            height = min(rows.shape[1], self.window[0])
            columns = rows.split(_whole_and_rest(rows.shape[2], self.window[1]), dim=2)
            sizes = [(height, min(some.shape[2], self.window[1])) for some in columns]
            area = self.window[0] * self.window[1]
            done = [self._windows(some, size, area - size[0] * size[1]) for some, size in zip(columns, sizes)]
            parts.append(torch.cat(done, dim=2) if len(done) > 1 else done[0])
        return self.attn.proj(torch.cat(parts, dim=1) if len(parts) > 1 else parts[0])

    def _windows(self, qkv: Tensor, size: Sequence[int], padding: int) -> Tensor:
        """Attention within windows of one size.

        Args:
            qkv: [B, h, w, 3 C'] of whole windows.
            size: height and width of the windows in cells.
            padding: cells of zeros that each of them would have.

        Returns:
            [B, h', w', C'].
        """
        (batch, height, width, channels), (high, wide) = qkv.shape, size
        heads, down, across = self.attn.num_heads, height // high, width // wide
        qkv = qkv.view(batch, down, high, across, wide, channels).transpose(2, 3)
        qkv = qkv.reshape(batch * down * across, high, wide, 3, channels // 3)
        query, key, value = self._pooled(qkv[..., 0, :]), qkv[..., 1, :].flatten(1, 2), qkv[..., 2, :].flatten(1, 2)
        high, wide = query.shape[1:3]
        bias = None
        if padding:
            _, of_key, of_value = self.attn.qkv.bias.to(qkv.dtype).view(3, 1, 1, -1).expand(-1, len(qkv), -1, -1)
            key, value = torch.cat([key, of_key], dim=1), torch.cat([value, of_value], dim=1)
            bias = F.pad(query.new_zeros(1, key.shape[1] - 1), (0, 1), value=math.log(padding))  # [1, N]
        q, k, v = (y.unflatten(-1, (heads, -1)).transpose(1, 2) for y in (query.flatten(1, 2), key, value))
        mixed = F.scaled_dot_product_attention(q, k, v, bias)  # [B * windows, heads, cells, d]
        mixed = mixed.transpose(1, 2).reshape(batch, down, across, high, wide, channels // 3).transpose(2, 3)
        return mixed.reshape(batch, down * high, across * wide, channels // 3)


def _whole_and_rest(length: int, window: int) -> list[int]:
    """Cells in whole windows and in the part of one that is left; without zeros."""
    return [part for part in (length - length % window, length % window) if part]
