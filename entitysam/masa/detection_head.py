"""Detection head: torchvision's Faster R-CNN with one class, trained on the foundation model's proposals."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from entitysam.masa.adapter import convolution
from entitysam.masa.pooling import FINEST_SCALE, PyramidRoIAlign
from entitysam.registry import MODELS

ANCHOR_CELLS = 8  # side of an anchor in cells of its level, for aspect ratio 1
ASPECTS = (0.5, 1.0, 2.0)
BOX_CODE_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
LOSSES = ("rpn_class", "rpn_box", "roi_class", "roi_box")


@MODELS.register("faster_rcnn")
class DetectionHead(nn.Module):
    """Class-agnostic two-stage detector: region proposal network and box head.

    Args:
        channels: C of the pyramid.
        strides: of all levels, finest first.
        roi_levels: number of levels, from the finest, that boxes are pooled from.
        convs, linears, hidden, norm: layers of the box head: published are 0 and 2 (SAM, Swin-B) or 4 and 1 (R50).
        num_anchors, num_samples: sampled per image for the losses of the first and of the second stage.
        num_proposals: [training, inference] number of proposals after NMS; before NMS it is twice that number in training
            (paper: 2000 -> 1000).
        score_threshold: minimum score of the boxes of `propose`.
        finest_scale: see `PyramidRoIAlign`.
    """

    def __init__(
        self,
        channels: int,
        strides: Sequence[int],
        roi_levels: int = 4,
        convs: int = 0,
        linears: int = 2,
        hidden: int = 1024,
        norm: str = "",
        num_anchors: int = 256,
        num_samples: int = 512,
        num_proposals: Sequence[int] = (1000, 1000),
        score_threshold: float = 0.02,
        finest_scale: float = FINEST_SCALE,
    ) -> None:
        super().__init__()
        training, inference = num_proposals
        self.rpn = RegionProposalNetwork(
            StridedAnchors(strides),
            RPNHead(channels, len(ASPECTS)),
            *(0.7, 0.3, num_anchors, 0.5),  # IoU of foreground and of background, samples, share of foreground
            pre_nms_top_n={"training": 2 * training, "testing": inference},
            post_nms_top_n={"training": training, "testing": inference},
            nms_thresh=0.7,
        )
        self.roi = RoIHeads(
            PyramidRoIAlign(strides[:roi_levels], finest_scale=finest_scale),
            BoxHead(channels, convs, linears, hidden, norm),
            BoxPredictor(hidden),
            *(0.5, 0.5, num_samples, 0.25),  # same order
            bbox_reg_weights=BOX_CODE_WEIGHTS,
            score_thresh=score_threshold,
            nms_thresh=0.5,
            detections_per_img=300,
        )

    def losses(
        self, maps: Sequence[Tensor], sizes: Sequence[tuple[int, int]], boxes: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """Losses of B images by the names of LOSSES: cross-entropy and smooth L1 of both stages.

        Args:
            maps: fused pyramid [B, C, h_i, w_i].
            sizes: (H, W) in pixels of each image without its padding.
            boxes: B target boxes [N_b, 4] (x1, y1, x2, y2) in input pixels.
        """
        targets = [
            {"boxes": one, "labels": torch.ones(len(one), dtype=torch.int64, device=one.device)} for one in boxes
        ]
        proposals, first = self.rpn(_images(sizes), _named(maps), targets)
        _, second = self.roi(list(maps), proposals, list(sizes), targets)
        values = [
            first["loss_objectness"],
            first["loss_rpn_box_reg"],
            second["loss_classifier"],
            second["loss_box_reg"],
        ]
        return dict(zip(LOSSES, values))

    @torch.no_grad()
    def regions(
        self, maps: Sequence[Tensor], sizes: Sequence[tuple[int, int]], limit: int | None = None
    ) -> list[Tensor]:
        """Proposals of the first stage: B tensors [N_b, 4] of at most `limit` boxes, by descending score."""
        training, self.rpn.training = self.rpn.training, False
        boxes, _ = self.rpn(_images(sizes), _named(maps))
        self.rpn.training = training
        return [one[:limit] for one in boxes]

    @torch.no_grad()
    def propose(self, maps: Sequence[Tensor], size: tuple[int, int], limit: int = 300) -> tuple[Tensor, Tensor]:
        """Boxes [N, 4] in input pixels and scores [N] of one image by descending score, at most `limit`, NMS 0.5.

        The module must be in eval mode.
        """
        self.roi.detections_per_img = limit
        found, _ = self.roi(list(maps), self.regions(maps, [size]), [size])
        return found[0]["boxes"], found[0]["scores"]


class BoxHead(nn.Module):
    """Pooled features [N, C, 7, 7] -> [N, hidden]."""

    def __init__(self, channels: int, convs: int, linears: int, hidden: int, norm: str) -> None:
        super().__init__()
        self.convs = nn.Sequential(*(convolution(channels, channels, 3, norm, True) for _ in range(convs)))
        widths = [channels * 49] + [hidden] * linears
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        x = self.convs(x).flatten(1)  # [N, C * 49]
        for linear in self.linears:
            x = F.relu(linear(x))
        return x


class BoxPredictor(nn.Module):
    """[N, hidden] -> torchvision's format: logits [N, 2] (background, object) and box codes [N, 8] (equal for both classes).

    The weights have the published layout: object first, one box code for all classes.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.classes = nn.Linear(hidden, 2)
        self.box = nn.Linear(hidden, 4)
        nn.init.normal_(self.classes.weight, std=0.01)
        nn.init.normal_(self.box.weight, std=0.001)
        for linear in (self.classes, self.box):
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        # torchvision has background first and a box code per class.
        return self.classes(x).flip(1), self.box(x).repeat(1, 2)


class StridedAnchors(AnchorGenerator):
    """Anchors of 8 cells in three aspect ratios, centred on cell corners; sides are not rounded to pixels.

    Args:
        strides: pixels per cell of each level.
    """

    def __init__(self, strides: Sequence[int]) -> None:
        self.strides = tuple(strides)
        super().__init__(tuple((ANCHOR_CELLS * stride,) for stride in strides), (ASPECTS,) * len(strides))

    def generate_anchors(self, scales, aspect_ratios, dtype=torch.float32, device="cpu") -> Tensor:  # type: ignore[override]
        """[A, 4] anchors centred on (0, 0); aspect ratio = height / width."""
        # equal areas: h = s sqrt(r), w = s / sqrt(r)
        root = torch.as_tensor(aspect_ratios, dtype=dtype, device=device).sqrt()
        scale = torch.as_tensor(scales, dtype=dtype, device=device)
        heights, widths = (root[:, None] * scale).flatten(), (scale / root[:, None]).flatten()
        return torch.stack([-widths, -heights, widths, heights], dim=1) / 2

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Anchors [sum of A h w, 4] of all levels per image. torchvision derives strides from sizes, which need not divide."""
        one = feature_maps[0]
        self.set_cell_anchors(one.dtype, one.device)
        grids = [[*each.shape[-2:]] for each in feature_maps]
        steps = [[torch.tensor(stride, device=one.device)] * 2 for stride in self.strides]
        anchors = torch.cat(self.grid_anchors(grids, steps))
        return [anchors] * len(image_list.image_sizes)


def _images(sizes: Sequence[tuple[int, int]]) -> ImageList:
    """An `ImageList` without pixels: torchvision uses only the sizes here."""
    return ImageList(torch.empty(len(sizes), 0), list(sizes))


def _named(maps: Sequence[Tensor]) -> dict[str, Tensor]:
    return {str(i): one for i, one in enumerate(maps)}
