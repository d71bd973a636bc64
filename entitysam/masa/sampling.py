"""Sampling of training boxes for the track head: proposals matched to instances, balanced over instances."""

import torch
from torch import Tensor
from torchvision.ops import box_iou

BACKGROUND = -1
POSITIVE_IOU, NEGATIVE_IOU = 0.7, 0.3
NEGATIVES_PER_POSITIVE = 3


def assign(proposals: Tensor, boxes: Tensor) -> Tensor:
    """Matches proposals to `boxes` [N, 4]: int64 [M] index of the box with IoU >= 0.7, -1 (background) below 0.3, else -2."""
    if not len(boxes):
        return torch.full((len(proposals),), BACKGROUND, device=proposals.device)
    overlap, row = box_iou(proposals, boxes).max(1)  # [M] IoU and row of the best box
    row[overlap < POSITIVE_IOU] = -2  # neither positive nor negative: never sampled
    row[overlap < NEGATIVE_IOU] = BACKGROUND
    return row


def sample_boxes(proposals: Tensor, boxes: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Samples boxes for the track head from proposals and target boxes.

    At most half are positives, spread evenly over the instances; there are at most three negatives per positive.

    Args:
        proposals: [M, 4]; boxes: [N, 4] of the instances, both (x1, y1, x2, y2) in pixels.
        count: maximum number of boxes.
        generator: source of all randomness, on the device of the boxes.

    Returns:
        boxes [K, 4] and their rows in `boxes`, int64 [K], -1 for background.
    """
    candidates = torch.cat([boxes, proposals.to(boxes)])
    rows = torch.cat([torch.arange(len(boxes), device=boxes.device), assign(proposals.to(boxes), boxes)])
    order = torch.randperm(len(rows), generator=generator, device=boxes.device)
    candidates, rows = candidates[order], rows[order]
    positive = (rows >= 0).nonzero()[:, 0]
    # The first box of every instance, then the second of each, ...: spread evenly over the instances.
    positive = positive[_occurrence(rows[positive]).argsort(stable=True)][: count // 2]
    negative = (rows == BACKGROUND).nonzero()[:, 0]
    negative = negative[: min(count - len(positive), NEGATIVES_PER_POSITIVE * len(positive))]
    chosen = torch.cat([positive, negative])
    return candidates[chosen], rows[chosen]


def _occurrence(rows: Tensor) -> Tensor:
    """int64 [K]: number of earlier equal entries of each entry; sorting by it interleaves the instances."""
    order = rows.argsort(stable=True)
    in_order = rows[order]
    place = torch.arange(len(rows), device=rows.device)
    first = torch.ones_like(in_order, dtype=torch.bool)
    first[1:] = in_order[1:] != in_order[:-1]
    start = torch.where(first, place, 0).cummax(0).values if len(rows) else place  # where the run of equal rows starts
    occurrence = torch.empty_like(rows)
    occurrence[order] = place - start
    return occurrence
