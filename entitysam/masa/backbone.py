"""The frozen foundation: feature maps of any timm model, from outside the way MASA's adapter wants them."""

from collections.abc import Sequence
from typing import Any

import timm
from torch import Tensor, nn

from entitysam.registry import MODELS


@MODELS.register("timm_features")
class TimmFeatures(nn.Module):
    """Image -> feature maps of some blocks or stages.

    Args:
        trunk: timm name, e.g. "resnet50", "samvit_base_patch16", "swin_base_patch4_window12_384".
        indices: which maps, as timm's `forward_intermediates` counts them: blocks of a plain ViT from 0, stages of a Swin
            from 0, of a ResNet from 1 (0 is the stem).
        trunk_args: further arguments of the timm model.
        norms: normalise every map by a LayerNorm of its own, as detectors on Swin do.
        stride_in_1x1: a ResNet's blocks shrink in their first convolution ("caffe" style, as the published R50 does) and
            not in their second.

    Attributes:
        widths: channels of the maps.
    """

    trunk: Any  # timm's models promise no common type

    def __init__(
        self,
        trunk: str,
        indices: Sequence[int],
        trunk_args: dict | None = None,
        norms: bool = False,
        stride_in_1x1: bool = False,
    ) -> None:
        super().__init__()
        self.trunk = timm.create_model(trunk, pretrained=False, num_classes=0, **(trunk_args or {}))
        self.indices = list(indices)
        infos = self.trunk.feature_info
        self.widths: list[int] = [infos[index]["num_chs"] for index in self.indices]
        self.trunk.prune_intermediate_layers(self.indices, prune_norm=True)  # what comes after the last map
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in self.widths) if norms else None
        if stride_in_1x1:
            _shrink_in_first_convolution(self.trunk)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images [B, 3, H, W] -> [B, C_i, h_i, w_i] each."""
        maps = self.trunk.forward_intermediates(images, indices=self.indices, intermediates_only=True)
        if self.norms is None:
            return maps
        return [norm(one.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) for norm, one in zip(self.norms, maps)]


def _shrink_in_first_convolution(trunk: nn.Module) -> None:
    for name in ("layer2", "layer3", "layer4"):
        block = trunk.get_submodule(f"{name}.0")
        block.conv1.stride, block.conv2.stride = (2, 2), (1, 1)  # type: ignore[assignment,union-attr]
