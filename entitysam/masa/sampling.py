"""Which boxes the track head learns from: proposals matched to instances, balanced over them."""

import torch
from torch import Tensor
from torchvision.ops import box_iou

BACKGROUND = -1
POSITIVE_IOU, NEGATIVE_IOU = 0.7, 0.3
NEGATIVES_PER_POSITIVE = 3


def assign(proposals: Tensor, boxes: Tensor) -> Tensor:
    """int64 [M]: row of the best of `boxes` [N, 4] where IoU >= 0.7, -1 (background) below 0.3, -2 between."""
    if not len(boxes):
        return torch.full((len(proposals),), BACKGROUND, device=proposals.device)
    overlap, row = box_iou(proposals, boxes).max(1)
    row[overlap < POSITIVE_IOU] = -2
    row[overlap < NEGATIVE_IOU] = BACKGROUND
    return row


def sample_boxes(proposals: Tensor, boxes: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draws boxes for the track head; the instances' own boxes take part as proposals.

    At most half are instances, spread evenly over them; at most three of background come with each of these.

    Args:
        proposals: [M, 4]; boxes: [N, 4] of the instances, both (x1, y1, x2, y2) in pixels.
        count: how many at most.
        generator: source of chance, on the device of the boxes.

    Returns:
        boxes [K, 4] and their rows in `boxes`, int64 [K], -1 for background.
    """
    candidates = torch.cat([boxes, proposals.to(boxes)])
    rows = torch.cat([torch.arange(len(boxes), device=boxes.device), assign(proposals.to(boxes), boxes)])
    order = torch.randperm(len(rows), generator=generator, device=boxes.device)
    candidates, rows = candidates[order], rows[order]
    positive = (rows >= 0).nonzero()[:, 0]
    positive = positive[_turns(rows[positive]).argsort(stable=True)][: count // 2]
    negative = (rows == BACKGROUND).nonzero()[:, 0]
    negative = negative[: min(count - len(positive), NEGATIVES_PER_POSITIVE * len(positive))]
    chosen = torch.cat([positive, negative])
    return candidates[chosen], rows[chosen]


def _turns(rows: Tensor) -> Tensor:
    """int64 [K]: how many of the same row stand before each; sorting by it deals rows out in turn."""
    order = rows.argsort(stable=True)
    in_order = rows[order]
    place = torch.arange(len(rows), device=rows.device)
    first = torch.ones_like(in_order, dtype=torch.bool)
    first[1:] = in_order[1:] != in_order[:-1]
    start = torch.where(first, place, 0).cummax(0).values if len(rows) else place
    turns = torch.empty_like(rows)
    turns[order] = place - start
    return turns
