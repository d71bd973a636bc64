"""Non-maximum suppression of packed masks that remembers who suppressed whom."""

from dataclasses import replace

import torch
from torch import Tensor

from entitysam.esam.bitmasks import MaskSet, boxes, popcount


def pair_intersections(a: MaskSet, b: MaskSet, rows: Tensor, columns: Tensor, chunk: int = 4096) -> Tensor:
    """Cells that mask `rows[k]` of `a` and mask `columns[k]` of `b` share: int64 [K]."""
    parts = [
        popcount(a.words[rows[start : start + chunk]] & b.words[columns[start : start + chunk]]).sum((1, 2))
        for start in range(0, len(rows), chunk)
    ]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64, device=a.words.device)


def iou_bound(area: Tensor, box: Tensor, areas: Tensor, all_boxes: Tensor) -> Tensor:
    """The most that the IoU of a mask with others can be, by area and bounding box alone.

    Args:
        area, box: of one mask, [] and [4]; or [N, 1] and [N, 1, 4] for all pairs.
        areas, all_boxes: of the others, [M] and [M, 4] as (x0, y0, x1, y1).

    Returns:
        float, broadcast shape.
    """
    sides = torch.minimum(box[..., 2:], all_boxes[..., 2:]) - torch.maximum(box[..., :2], all_boxes[..., :2])
    shared = sides.clamp(min=0).prod(-1)
    most = torch.minimum(torch.minimum(area, areas), shared)
    return most / (area + areas - most).clamp(min=1)


def mask_nms(masks: MaskSet, thresholds: Tensor | float) -> tuple[Tensor, Tensor]:
    """Greedy NMS by score with exact mask IoU; a mask falls when its IoU with a kept one exceeds that one's threshold.

    Per-mask thresholds make it the Adaptive NMS of E-SAM's Eq. (4).

    Args:
        masks: N masks; empty ones are never kept.
        thresholds: in 0..1, one for all or [N].

    Returns:
        kept: int64 [n] indices by descending score (ties: first come), and
        representative: int64 [N], position in `kept` of the mask itself or of what suppressed it; -1 for empty masks.
    """
    device = masks.words.device
    order = masks.scores.argsort(descending=True, stable=True)
    ordered = replace(masks, logits=None)[order]
    box = boxes(ordered.words, ordered.width)
    limits = torch.as_tensor(thresholds, dtype=torch.float32, device=device).expand(len(masks))[order].tolist()
    alive = ordered.areas > 0
    owner = torch.full((len(masks),), -1, dtype=torch.int64, device=device)
    kept: list[int] = []
    for current in range(len(masks)):
        if not alive[current]:
            continue
        alive[current] = False
        owner[current] = len(kept)
        later = slice(current + 1, None)
        bound = iou_bound(ordered.areas[current], box[current], ordered.areas[later], box[later])
        near = (alive[later] & (bound > limits[current])).nonzero().squeeze(1) + current + 1
        if len(near):
            y0, y1 = box[current, 1], box[current, 3]
            shared = popcount(ordered.words[near, y0:y1] & ordered.words[current, y0:y1]).sum((1, 2))
            iou = shared / (ordered.areas[near] + ordered.areas[current] - shared)
            fallen = near[iou > limits[current]]
            alive[fallen] = False
            owner[fallen] = len(kept)
        kept.append(current)
    representative = torch.empty_like(owner)
    representative[order] = owner
    return order[torch.tensor(kept, dtype=torch.int64, device=device)], representative


def matches_any(masks: MaskSet, others: MaskSet, threshold: float) -> Tensor:
    """Whether some mask of `others` has IoU >= threshold with each of `masks`: bool [N]."""
    found = torch.zeros(len(masks), dtype=torch.bool, device=masks.words.device)
    if not len(masks) or not len(others):
        return found
    box, other_box = boxes(masks.words, masks.width), boxes(others.words, others.width)
    bound = iou_bound(masks.areas[:, None], box[:, None], others.areas, other_box)
    rows, columns = ((bound >= threshold) & (masks.areas[:, None] > 0)).nonzero(as_tuple=True)
    shared = pair_intersections(masks, others, rows, columns)
    iou = shared / (masks.areas[rows] + others.areas[columns] - shared)
    found[rows[iou >= threshold]] = True
    return found
