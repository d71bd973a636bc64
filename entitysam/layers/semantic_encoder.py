"""The semantic encoder: any timm ViT; for DINOv2 the position table is resized as in its release."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from entitysam.layers.position import position_table
from entitysam.layers.trunk import create_trunk
from entitysam.registry import MODELS


@MODELS.register("timm_vit")
class TimmViT(nn.Module):
    """Image -> one token per feature-grid cell, the last layer's patch tokens after the final norm (paper section 3.3.1).

    Args:
        trunk: timm name, e.g. "vit_small_patch14_dinov2", "vit_small_patch16_dinov3", "vit_base_patch16_clip_224".
        trunk_args: further arguments of the timm model.

    Attributes:
        channels: width of the tokens.
    """

    trunk: Any  # timm's models have no common type

    def __init__(self, trunk: str, trunk_args: dict | None = None):
        super().__init__()
        arguments = dict(trunk_args or {})
        # timm resizes the position table for other image sizes; DINOv2's is resized below, as in its release.
        self.resizes_table = "dinov2" in trunk
        if not trunk.startswith("samvit"):
            arguments.setdefault("dynamic_img_size", True)
        self.trunk = create_trunk(trunk, arguments)
        self._init_position()
        self.patch: int = self.trunk.patch_embed.patch_size[0]
        self.channels: int = self.trunk.num_features

    @torch.no_grad()
    def _init_position(self) -> None:
        """Initialises a position table of tokens with waves instead of timm's values near 0."""
        table = self.trunk.pos_embed
        if table is None or table.ndim != 3:
            return
        prefix = self.trunk.num_prefix_tokens
        side = round((table.shape[1] - prefix) ** 0.5)
        if prefix + side * side == table.shape[1]:
            table[0, prefix:] = position_table(side, table.shape[2])

    def forward(self, images: Tensor, size: int) -> Tensor:
        """Normalised images [B, 3, S, S], grid side h -> tokens [B, h * h, channels]."""
        side = size * self.patch
        if images.shape[-1] != side:
            images = F.interpolate(images, size=(side, side), mode="bilinear", align_corners=False)
        if self.resizes_table:
            return self._dinov2(images, size)
        tokens = self.trunk.forward_features(images)
        if tokens.ndim == 4:  # SAM's ViT returns a map [B, C, h, w]
            return tokens.flatten(2).transpose(1, 2)
        return tokens[:, -size * size :]

    def _dinov2(self, images: Tensor, size: int) -> Tensor:
        """Forward pass with the resized position table; [B, 3, S, S] -> [B, h * h, channels]."""
        patches = self.trunk.patch_embed(images).reshape(len(images), size * size, -1)
        position = self._resized_table(size).to(patches.dtype)
        cls = self.trunk.cls_token.expand(len(images), -1, -1).to(patches.dtype)
        tokens = torch.cat([cls, patches], dim=1) + position
        for block in self.trunk.blocks:
            tokens = block(tokens)
        return self.trunk.norm(tokens)[:, 1:]

    def _resized_table(self, size: int) -> Tensor:
        """Position table [1, 1 + h * h, C]; like DINOv2's release it is resized by the scale (h + 0.1) / 37, not to a size."""
        table = self.trunk.pos_embed
        side = round((table.shape[1] - 1) ** 0.5)
        if side == size:
            return table
        grid = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)  # [1, C, side, side]
        scale = (size + 0.1) / side
        grid = F.interpolate(grid.float(), scale_factor=(scale, scale), mode="bicubic", antialias=False)
        return torch.cat([table[:, :1], grid.permute(0, 2, 3, 1).flatten(1, 2).to(table.dtype)], dim=1)
