"""Image encoder made of any timm feature backbone and a top-down pyramid (FPN, Lin et al. 2017)."""

from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from entitysam.layers.trunk import check_trunk
from entitysam.registry import MODELS

STRIDES = (4, 8, 16)


@MODELS.register("timm_pyramid")
class PyramidEncoder(nn.Module):
    """Image -> maps of stride 4, 8 and 16: each is a 1 x 1 projection plus the upsampled coarser map, then GroupNorm.

    Batch norms of the trunk always use their stored statistics: training batches are too small to estimate them.

    Args:
        trunk: timm name of a model with `features_only` support, e.g. "efficientnet_lite0" or "repvit_m0_9".
        channels: C of the maps, divisible by `groups`.
        trunk_args: further arguments of the timm model.
        coarsest: stride of the map that the top-down path starts from, 16 or 32.
        groups: of the GroupNorms.

    Raises:
        ValueError: timm has no such backbone, or it does not give maps of stride 4, 8, 16 (and 32 where `coarsest` is 32).
    """

    strides = STRIDES
    trunk: Any  # timm's models have no common type

    def __init__(
        self, trunk: str, channels: int = 256, trunk_args: dict | None = None, coarsest: int = 32, groups: int = 8
    ):
        super().__init__()
        if coarsest not in (16, 32):
            raise ValueError(f"model.image_encoder.coarsest: 16 or 32, not {coarsest}")
        if channels % groups:
            raise ValueError(f"model.image_encoder.groups: {channels} channels cannot be split into {groups} groups")
        strides = STRIDES if coarsest == 16 else (*STRIDES, 32)
        self.name, self.trunk_args, self.all_strides = trunk, dict(trunk_args or {}), strides
        self.trunk = create_trunk(trunk, strides, self.trunk_args)
        self.trunk.to(memory_format=torch.channels_last)  # oneDNN is then faster on a CPU, and cuDNN on a GPU
        widths = self.trunk.feature_info.channels()
        self.lateral = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in widths)
        self.norms = nn.ModuleList(nn.GroupNorm(groups, channels) for _ in STRIDES)

    def load_pretrained(self) -> None:
        """Loads the trunk's weights from timm's hub."""
        released = create_trunk(self.name, self.all_strides, self.trunk_args, pretrained=True)
        self.trunk.load_state_dict(released.state_dict())

    def train(self, mode: bool = True) -> "PyramidEncoder":
        """Training mode for all but the batch norms."""
        super().train(mode)
        for module in self.trunk.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised images [B, 3, S, S] -> [B, C, S/4, S/4], [B, C, S/8, S/8], [B, C, S/16, S/16]."""
        # oneDNN's depthwise convolutions are faster on channels-last maps.
        maps = self.trunk(images.contiguous(memory_format=torch.channels_last))
        projected = [lateral(x) for lateral, x in zip(self.lateral, maps)]
        top_down = projected.pop() if len(projected) > len(STRIDES) else None
        pyramid = []
        for x, norm in zip(reversed(projected), reversed(self.norms)):
            if top_down is not None:
                x = x + F.interpolate(top_down, size=x.shape[-2:], mode="nearest")
            top_down = x
            pyramid.append(norm(x))
        stride16, stride8, stride4 = pyramid
        return stride4, stride8, stride16


def create_trunk(name: str, strides: tuple[int, ...], arguments: dict[str, Any], pretrained: bool = False) -> Any:
    """timm's feature backbone with one map per stride.

    Raises:
        ValueError: no such model, or no map of one of the strides.
    """
    if not timm.is_model(name):
        raise ValueError(f"model.image_encoder.trunk: timm has no model '{name}'")
    arguments = check_trunk(name, arguments)
    try:
        everything: Any = timm.create_model(name, features_only=True, pretrained=False, **arguments)
    except (RuntimeError, AttributeError, TypeError, AssertionError) as error:
        raise ValueError(f"model.image_encoder.trunk: '{name}' gives no feature maps ({error})") from error
    found = everything.feature_info.reduction()
    missing = [stride for stride in strides if stride not in found]
    if missing:
        raise ValueError(
            f"model.image_encoder.trunk: '{name}' has maps of stride {', '.join(map(str, found))}; "
            f"{', '.join(map(str, strides))} are needed"
        )
    # The last map of a stride has seen the most layers.
    indices = tuple(len(found) - 1 - found[::-1].index(stride) for stride in strides)
    levels = everything.feature_info.out_indices
    return timm.create_model(
        name, features_only=True, pretrained=pretrained, out_indices=tuple(levels[i] for i in indices), **arguments
    )
