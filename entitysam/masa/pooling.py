"""RoIAlign (He et al., Mask R-CNN) on a feature pyramid: each box is pooled from the level that fits its size."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

FINEST_SCALE = 56  # pixels; boxes smaller than twice this are pooled from the finest level (Lin et al., FPN, Eq. 1)


class PyramidRoIAlign(nn.Module):
    """Boxes -> [N, C, 7, 7].

    Args:
        strides: pixels per cell of the levels used, finest first; further levels are ignored.
        size: side of the output.
        finest_scale: see FINEST_SCALE; smaller for small input sizes.
    """

    def __init__(self, strides: Sequence[int], size: int = 7, finest_scale: float = FINEST_SCALE) -> None:
        super().__init__()
        self.strides, self.size, self.finest_scale = tuple(strides), size, finest_scale

    def levels(self, boxes: Tensor) -> Tensor:
        """Level int64 [N] of each box [N, 4]."""
        sides = ((boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1)).sqrt()
        level = torch.log2(sides / self.finest_scale + 1e-6).floor()  # [N], FPN's rule: an octave per level
        return level.clamp(0, len(self.strides) - 1).long()

    def forward(self, maps: Sequence[Tensor] | Mapping, boxes: Sequence[Tensor], _shapes: object = None) -> Tensor:
        """Pools the features of boxes.

        Args:
            maps: levels [B, C, h_i, w_i], finest first (or a mapping with such values).
            boxes: B tensors [N_b, 4] (x1, y1, x2, y2) in pixels of the network's input.

        Returns:
            [sum of N_b, C, size, size], ordered by image.
        """
        levels = list(maps.values()) if isinstance(maps, Mapping) else list(maps)
        image = torch.cat([torch.full_like(one[:, :1], b) for b, one in enumerate(boxes)])
        rois = torch.cat([image, torch.cat(list(boxes))], dim=1)  # [N, 5]: index of the image, box
        chosen = self.levels(rois[:, 1:])
        pooled = levels[0].new_zeros(len(rois), levels[0].shape[1], self.size, self.size)
        for i, stride in enumerate(self.strides):
            rows = (chosen == i).nonzero()[:, 0]
            # Levels without boxes are pooled too: every level stays in the graph.
            read = roi_align(levels[i], rois[rows].to(levels[i]), self.size, 1 / stride, 0, aligned=True)
            pooled = pooled.index_put((rows,), read.to(pooled))
        return pooled
