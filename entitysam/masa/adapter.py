"""MASA's adapter: a feature pyramid on a frozen backbone, then dynamic feature fusion (supplement J.1)."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from entitysam.layers.common import LayerNorm2d
from entitysam.registry import MODELS, ConfigError

NORMS = ("", "group", "batch")
GROUPS = 32


def convolution(inputs: int, outputs: int, kernel: int, norm: str = "", activation: bool = False) -> nn.Sequential:
    """Convolution, norm and ReLU as named children `conv`, `norm`, `relu`; without a norm the convolution has a bias.

    Args:
        norm: "", "group" (32 groups) or "batch".

    Raises:
        ConfigError: unknown norm, or channels that are not a multiple of 32 for "group".
    """
    if norm not in NORMS or (norm == "group" and outputs % GROUPS):
        raise ConfigError(f"norm '{norm}' of {outputs} channels: '', batch, or group ({GROUPS} groups)")
    layers = nn.Sequential()
    layers.add_module("conv", nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=not norm))
    if norm:
        layers.add_module("norm", nn.GroupNorm(GROUPS, outputs) if norm == "group" else nn.BatchNorm2d(outputs))
    if activation:
        layers.add_module("relu", nn.ReLU(inplace=True))
    return layers


@MODELS.register("fpn")
class FeaturePyramid(nn.Module):
    """Feature Pyramid Network (Lin et al., CVPR 2017); further levels subsample the last one by 2.

    Args:
        widths: channels of the backbone's maps.
        channels: C of every level.
        num_levels: number of output levels, at least the number of the backbone's maps.
        norm: of the convolutions, see `convolution`.
    """

    def __init__(self, widths: Sequence[int], channels: int, num_levels: int = 5, norm: str = "") -> None:
        super().__init__()
        if num_levels < len(widths):
            raise ConfigError(f"num_levels {num_levels}: the backbone already gives {len(widths)} maps")
        self.num_levels = num_levels
        self.lateral = nn.ModuleList(convolution(width, channels, 1, norm) for width in widths)
        self.output = nn.ModuleList(convolution(channels, channels, 3, norm) for _ in widths)
        for layers in (*self.lateral, *self.output):
            conv = layers.get_submodule("conv")
            nn.init.xavier_uniform_(conv.weight)  # type: ignore[arg-type]
            if not norm:
                nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """[B, C_i, h_i, w_i], finest first -> [B, C, h_i, w_i], `num_levels` of them."""
        levels = [lateral(one) for lateral, one in zip(self.lateral, maps)]  # [B, C, h_i, w_i]
        # Top-down: every level adds the coarser one, upsampled.
        for i in range(len(levels) - 1, 0, -1):
            levels[i - 1] = levels[i - 1] + F.interpolate(levels[i], size=levels[i - 1].shape[-2:], mode="nearest")
        levels = [output(level) for output, level in zip(self.output, levels)]
        while len(levels) < self.num_levels:
            levels.append(F.max_pool2d(levels[-1], 1, stride=2))
        return levels


@MODELS.register("plain_vit_fpn")
class PlainViTPyramid(nn.Module):
    """Pyramid of a plain ViT: the maps of four blocks are resampled from stride 16 to 4, 8, 16, 32; then an FPN (J.1).

    Same arguments as `FeaturePyramid`; the four widths are equal.
    """

    def __init__(self, widths: Sequence[int], channels: int, num_levels: int = 5, norm: str = "") -> None:
        super().__init__()
        if len(widths) != 4 or len(set(widths)) != 1:
            raise ConfigError(f"plain_vit_fpn: needs four maps of one width, not {list(widths)}")
        width = widths[0]
        self.up4 = nn.Sequential(
            nn.ConvTranspose2d(width, width, 2, stride=2),
            LayerNorm2d(width),
            nn.GELU(),
            nn.ConvTranspose2d(width, width, 2, stride=2),
        )
        self.up2 = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.pyramid = FeaturePyramid(widths, channels, num_levels, norm)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Four maps [B, C', h, w] of stride 16 -> [B, C, h_i, w_i], `num_levels` of them."""
        first, second, third, fourth = maps  # strides 16 -> 4, 8, 16, 32
        return self.pyramid([self.up4(first), self.up2(second), third, F.max_pool2d(fourth, 2)])


class Adapter(nn.Module):
    """Feature pyramid followed by dynamic feature fusion.

    Args:
        pyramid: `FeaturePyramid` or `PlainViTPyramid`.
        fusion: `DeformableFusion`.
    """

    def __init__(self, pyramid: nn.Module, fusion: nn.Module) -> None:
        super().__init__()
        self.pyramid = pyramid
        self.fusion = fusion

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The backbone's maps -> fused maps [B, C, h_i, w_i], finest first."""
        return self.fusion(self.pyramid(maps))
