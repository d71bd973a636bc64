"""SAM 2's image encoder: Hiera trunk (timm) and feature-pyramid neck."""

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
