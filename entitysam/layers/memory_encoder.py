"""SAM 2's memory encoder: a mask and the frame's map -> the entity's memory of that frame."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from entitysam.layers.common import LayerNorm2d


class ConvNeXtBlock(nn.Module):
    """Depth-wise 7 x 7 convolution and an MLP per cell, with a learnt residual scale (SAM 2's `CXBlock`)."""

    def __init__(self, channels: int, kernel: int = 7):
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.norm = LayerNorm2d(channels)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(1e-6 * torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x)).permute(0, 2, 3, 1)  # [B, C, h, w] -> [B, h, w, C] for the linear layers
        y = self.gamma * self.pwconv2(F.gelu(self.pwconv1(y)))
        return x + y.permute(0, 3, 1, 2)


class MaskDownsampler(nn.Module):
    """Stride-2 convolutions, one mask -> C channels at stride 16 (SAM 2's `MaskDownSampler`).

    Args:
        channels: C.
        widths: channels after each of the convolutions: four from the image's size, two from the masks' own stride 4.
    """

    def __init__(self, channels: int, widths: Sequence[int] = (4, 16, 64, 256)):
        super().__init__()
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise([1, *widths]):
            layers += [nn.Conv2d(width_in, width_out, 3, stride=2, padding=1), LayerNorm2d(width_out), nn.GELU()]
        self.encoder = nn.Sequential(*layers, nn.Conv2d(widths[-1], channels, 1))

    def forward(self, masks: Tensor) -> Tensor:
        """[Q, 1, 2^n S/16, 2^n S/16], where n is the number of convolutions -> [Q, C, S/16, S/16]."""
        return self.encoder(masks)


class MemoryEncoder(nn.Module):
    """Fuses downsampled masks with the frame's raw map (SAM 2, section 4, "Memory encoder").

    Args:
        channels: C of the map.
        memory_channels: Cm of the memories.
        depth: ConvNeXt blocks of the fuser.
        mask_widths: of the mask downsampler; with fewer than four, masks are encoded at a lower resolution.

    Encodes `group` entities at a time: their masks have the full image size, by far the largest activations.
    """

    group = 10
    mask_scale, mask_bias = 20.0, -10.0  # SAM 2's sigmoid_scale_for_mem_enc and sigmoid_bias_for_mem_enc

    def __init__(
        self,
        channels: int = 256,
        memory_channels: int = 64,
        depth: int = 2,
        mask_widths: Sequence[int] = (4, 16, 64, 256),
    ):
        super().__init__()
        self.mask_downsampler = MaskDownsampler(channels, mask_widths)
        self.pix_feat_proj = nn.Conv2d(channels, channels, 1)
        self.fuser = nn.Sequential(*(ConvNeXtBlock(channels) for _ in range(depth)))
        self.out_proj = nn.Conv2d(channels, memory_channels, 1)
        self.mask_cells = 2 ** len(mask_widths)  # mask pixels per side of a cell

    def forward(self, feature: Tensor, mask_logits: Tensor, binarize: bool = False) -> Tensor:
        """feature [1, C, h, w], mask_logits [Q, S/4, S/4] -> memories [Q, hw, Cm]; `binarize` the masks of prompted frames."""
        pixels = self.pix_feat_proj(feature)
        return torch.cat([self._encode(pixels, some, binarize) for some in mask_logits.split(self.group)])

    def _encode(self, pixels: Tensor, mask_logits: Tensor, binarize: bool) -> Tensor:
        size = self.mask_cells * pixels.shape[-1]
        masks = mask_logits[:, None].to(self.out_proj.weight.dtype)  # [Q, 1, S/4, S/4]
        if masks.shape[-1] != size:
            masks = F.interpolate(masks, size=(size, size), mode="bilinear", align_corners=False)
        probability = (masks > 0).to(masks.dtype) if binarize else masks.sigmoid()
        masks = probability * self.mask_scale + self.mask_bias
        # Convolutions of few channels on large maps are faster in this layout.
        masks = masks.contiguous(memory_format=torch.channels_last)
        fused = self.fuser(pixels + self.mask_downsampler(masks))
        return self.out_proj(fused).flatten(2).transpose(1, 2).contiguous()  # [Q, Cm, h, w] -> [Q, hw, Cm]
