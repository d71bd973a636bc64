"""The frozen backbone: multi-scale feature maps of any timm model."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from entitysam.layers.trunk import create_trunk
from entitysam.registry import MODELS, ConfigError


@MODELS.register("timm_features")
class TimmFeatures(nn.Module):
    """Feature maps of selected blocks or stages of a timm model.

    Args:
        trunk: timm name, e.g. "resnet50", "samvit_base_patch16", "swin_base_patch4_window12_384".
        indices: indices of timm's `forward_intermediates`: blocks of a plain ViT from 0, stages of a Swin from 0, of a
            ResNet from 1 (0 is the stem).
        trunk_args: further arguments of the timm model.
        norms: apply a LayerNorm to each map, as detectors with a Swin backbone do.
        stride_in_1x1: a ResNet's bottleneck has its stride in the first 1x1 convolution ("caffe" style, as in the
            published R50) instead of the 3x3 convolution.

    Attributes:
        widths: channels of the maps.

    Raises:
        ConfigError: a name with a source ("hf-hub:..."), which would be requested from a server; unknown indices.
    """

    trunk: Any  # timm's models have no common base type

    def __init__(
        self,
        trunk: str,
        indices: Sequence[int],
        trunk_args: dict | None = None,
        norms: bool = False,
        stride_in_1x1: bool = False,
    ) -> None:
        super().__init__()
        self.trunk = create_trunk(trunk, trunk_args)
        self.indices = list(indices)
        infos = self.trunk.feature_info
        if not self.indices or not all(0 <= index < len(infos) for index in self.indices):
            raise ConfigError(f"backbone.indices: {self.indices}, but {trunk} has maps 0..{len(infos) - 1}")
        self.widths: list[int] = [infos[index]["num_chs"] for index in self.indices]
        self.trunk.prune_intermediate_layers(self.indices, prune_norm=True)  # layers after the last map
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in self.widths) if norms else None
        if stride_in_1x1:
            _move_stride_to_first_convolution(self.trunk)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images [B, 3, H, W] -> [B, C_i, h_i, w_i] each."""
        maps = self.trunk.forward_intermediates(images, indices=self.indices, intermediates_only=True)
        if self.norms is None:
            return maps
        # LayerNorm over channels: [B, C, h, w] -> [B, h, w, C] -> [B, C, h, w]
        return [norm(one.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) for norm, one in zip(self.norms, maps)]


def _move_stride_to_first_convolution(trunk: nn.Module) -> None:
    for name in ("layer2", "layer3", "layer4"):
        block = trunk.get_submodule(f"{name}.0")
        block.conv1.stride, block.conv2.stride = (2, 2), (1, 1)  # type: ignore[assignment,union-attr]
