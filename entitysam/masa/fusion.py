"""Dynamic feature fusion: deformable convolution over space and neighbouring levels (Zhu et al., Deformable ConvNets v2,
CVPR 2019), with the scale- and task-aware attention of Dynamic Head (Dai et al., CVPR 2021) for SAM (supplement J.1)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import DeformConv2d

from entitysam.registry import MODELS, ConfigError

TAPS = 9  # of a 3 x 3 kernel
GROUPS = 16
COARSER = ("pooled", "cropped", "packed")


class ModulatedConvolution(nn.Module):
    """3 x 3 deformable convolution with modulation, then GroupNorm."""

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = DeformConv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.norm = nn.GroupNorm(GROUPS, channels)
        nn.init.kaiming_uniform_(self.conv.weight, nonlinearity="relu")

    def forward(self, x: Tensor, geometry: tuple[Tensor, Tensor]) -> Tensor:
        if x.device.type == "cpu":
            return self.norm(deformable_convolution(x, *geometry, self.conv.weight, self.conv.stride[0]))
        return self.norm(self.conv(x, *geometry))


def deformable_convolution(x: Tensor, offsets: Tensor, masks: Tensor, weight: Tensor, stride: int) -> Tensor:
    """torchvision's `deform_conv2d` for 3 x 3 kernels and padding 1, much faster on a CPU, mostly in the backward pass.

    Args:
        x: [B, C, H, W]; offsets: [B, 18, h, w] (y, x) per tap; masks: [B, 9, h, w]; weight: [C', C, 3, 3].

    Returns:
        [B, C', h, w].
    """
    # Sampling with `grid_sample` and one matrix product over (channel, tap) replaces the kernel.
    batch, channels, rows, columns = x.shape
    height, width = masks.shape[-2:]
    tap = torch.arange(3, device=x.device) - 1
    y = (torch.arange(height, device=x.device) * stride)[:, None] + tap[:, None, None]  # [3, h, 1]
    across = (torch.arange(width, device=x.device) * stride)[None] + tap[:, None, None]  # [3, 1, w]
    dy, dx = offsets.view(batch, 3, 3, 2, height, width).unbind(3)  # [B, 3, 3, h, w] each
    place = torch.stack([(across + dx) * 2 + 1, (y[:, None] + dy) * 2 + 1], dim=-1)
    place = (
        place / place.new_tensor([columns, rows]) - 1
    )  # [B, 3, 3, h, w, 2]; -1 and 1 are the outer edges of the border pixels
    taps = F.grid_sample(
        x, place.view(batch, TAPS * height, width, 2).to(x.dtype), align_corners=False
    )  # [B, C, 9 h, w]
    weighted = taps.view(batch, channels * TAPS, height * width) * masks.repeat(1, channels, 1, 1).flatten(
        2
    )  # [B, 9 C, h w]
    return (weight.flatten(1) @ weighted).view(batch, -1, height, width)


class DynamicReLU(nn.Module):
    """Task-aware attention: max(a1 x + b1, a2 x + b2) with coefficients per channel predicted from the pooled map.

    If the last layer outputs 0, it is a ReLU.
    """

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels // reduction, 1)
        self.conv2 = nn.Conv2d(channels // reduction, channels * 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.relu(self.conv1(x.mean((2, 3), keepdim=True)))
        a1, b1, a2, b2 = (F.hardsigmoid(self.conv2(pooled)) - 0.5).chunk(4, dim=1)
        return torch.maximum(x * (2 * a1 + 1) + b1, x * (2 * a2) + b2)


class FusionBlock(nn.Module):
    """Each level becomes the mean of convolutions of itself, the finer level (stride 2) and the coarser level (upsampled).

    Args:
        channels: C.
        attention: scale-aware and task-aware attention.
        shared_geometry: one set of offsets and masks for the three inputs instead of one each.
        coarser: how offsets of this level's grid are fitted to the smaller grid of the coarser level: "pooled" averages
            them, "cropped" takes the top left corner (DyHead as published), "packed" takes the first values in memory
            (as published for R50 and Swin-B, needed for these checkpoints).
    """

    def __init__(self, channels: int, attention: bool, shared_geometry: bool, coarser: str) -> None:
        super().__init__()
        self.coarser_geometry = coarser
        self.sets = 1 if shared_geometry else 3
        self.geometry = nn.Conv2d(channels, self.sets * 3 * TAPS, 3, padding=1)
        self.coarser = ModulatedConvolution(channels)
        self.same = ModulatedConvolution(channels)
        self.finer = ModulatedConvolution(channels, stride=2)
        self.scale_attention = nn.Conv2d(channels, 1, 1) if attention else None
        self.task_attention = DynamicReLU(channels) if attention else None
        nn.init.zeros_(self.geometry.weight)
        nn.init.zeros_(self.geometry.bias)  # type: ignore[arg-type]

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [self._fuse(maps, level) for level in range(len(maps))]

    def _fuse(self, maps: Sequence[Tensor], level: int) -> Tensor:
        here = maps[level]
        same, finer, coarser = self._geometry(here)
        found = [self.same(here, same)]
        if level > 0:
            found.append(self.finer(maps[level - 1], finer))
        if level + 1 < len(maps):
            above = maps[level + 1]
            fitted = (fit(coarser[0], above, self.coarser_geometry), fit(coarser[1], above, self.coarser_geometry))
            enlarged = F.interpolate(
                self.coarser(above, fitted), size=here.shape[-2:], mode="bilinear", align_corners=True
            )
            found.append(enlarged)
        fused = torch.stack([self._weighted(one) for one in found]).mean(0)
        return fused if self.task_attention is None else self.task_attention(fused)

    def _geometry(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(offsets [B, 18, h, w], masks [B, 9, h, w]) for the same, the finer and the coarser level."""
        values = self.geometry(x)
        offsets = values[:, : self.sets * 2 * TAPS].chunk(self.sets, dim=1)
        masks = values[:, self.sets * 2 * TAPS :].sigmoid().chunk(self.sets, dim=1)
        return [(offsets[i % self.sets], masks[i % self.sets]) for i in range(3)]

    def _weighted(self, x: Tensor) -> Tensor:
        if self.scale_attention is None:
            return x
        return x * F.hardsigmoid(F.relu(self.scale_attention(x.mean((2, 3), keepdim=True))))


def fit(values: Tensor, above: Tensor, how: str) -> Tensor:
    """Fits offsets or masks [B, K, h, w] to the grid of the coarser level `above` [B, C, h', w'] -> [B, K, h', w']."""
    height, width = above.shape[-2:]
    if how == "pooled":
        return F.adaptive_avg_pool2d(values, (height, width))
    if how == "cropped":
        return values[:, :, :height, :width]
    return values.flatten(1)[:, : values.shape[1] * height * width].view(-1, values.shape[1], height, width)


@MODELS.register("deformable_fusion")
class DeformableFusion(nn.Module):
    """A sequence of `FusionBlock` modules.

    Args:
        channels: C.
        num_blocks: number of blocks (paper: 3).
        attention, shared_geometry, coarser: see `FusionBlock`. DyHead (SAM): true, true, "cropped"; otherwise false,
            false, "packed" as published.

    Raises:
        ConfigError: unknown `coarser`, or channels that are not a multiple of 16.
    """

    def __init__(
        self,
        channels: int,
        num_blocks: int = 3,
        attention: bool = False,
        shared_geometry: bool = False,
        coarser: str = "pooled",
    ) -> None:
        super().__init__()
        if coarser not in COARSER or channels % GROUPS:
            raise ConfigError(
                f"coarser '{coarser}': one of {', '.join(COARSER)}; channels {channels}: multiple of {GROUPS}"
            )
        self.blocks = nn.Sequential(
            *(FusionBlock(channels, attention, shared_geometry, coarser) for _ in range(num_blocks))
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """[B, C, h_i, w_i] each, finest first -> the same shapes."""
        return list(self.blocks(maps))
