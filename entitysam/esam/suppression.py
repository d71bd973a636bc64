"""Non-maximum suppression of packed masks that also returns the suppressing mask."""

from dataclasses import replace

import numpy as np
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


def iou_bound(area: np.ndarray, box: np.ndarray, areas: np.ndarray, all_boxes: np.ndarray) -> np.ndarray:
    """Upper bound of the IoU of a mask with others, from areas and bounding boxes.

    Args:
        area, box: of one mask, [] and [4]; or [N, 1] and [N, 1, 4] for all pairs.
        areas, all_boxes: of the others, [M] and [M, 4] as (x0, y0, x1, y1).

    Returns:
        float, broadcast shape.
    """
    width = np.minimum(box[..., 2], all_boxes[..., 2]) - np.maximum(box[..., 0], all_boxes[..., 0])
    height = np.minimum(box[..., 3], all_boxes[..., 3]) - np.maximum(box[..., 1], all_boxes[..., 1])
    # The intersection is at most the smaller mask and at most the intersection of the boxes.
    most = np.minimum(np.minimum(area, areas), width.clip(0) * height.clip(0))
    return most / np.maximum(area + areas - most, 1)


def mask_nms(masks: MaskSet, thresholds: Tensor | float) -> tuple[Tensor, Tensor]:
    """Greedy NMS by score with exact mask IoU; a kept mask suppresses masks with an IoU above its threshold.

    With per-mask thresholds it is the Adaptive NMS of E-SAM's Eq. (4).

    Args:
        masks: N masks; empty ones are never kept.
        thresholds: in 0..1, one for all or [N].

    Returns:
        kept: int64 [n] indices by descending score (ties: input order), and
        representative: int64 [N], position in `kept` of the mask itself or of the mask that suppressed it; -1 for empty masks.
    """
    order = masks.scores.argsort(descending=True, stable=True)
    ordered = replace(masks, logits=None)[order]
    limits = torch.as_tensor(thresholds, dtype=torch.float32, device=order.device).expand(len(masks))[order]
    kept, owner = _greedy(ordered, limits.tolist())
    representative = torch.empty_like(order)
    representative[order] = torch.from_numpy(owner).to(order.device)
    return order[torch.tensor(kept, dtype=torch.int64, device=order.device)], representative


def _greedy(masks: MaskSet, limits: list[float]) -> tuple[list[int], np.ndarray]:
    """Greedy NMS of masks by descending score: the kept masks, and per mask the position of its suppressor or -1.

    Sequential, with few neighbours per mask: faster on the host for any device.
    """
    words, area = masks.words.cpu(), masks.areas.cpu().numpy()
    box = boxes(masks.words, masks.width).cpu().numpy()
    alive = area > 0
    owner = np.full(len(masks), -1, np.int64)
    kept: list[int] = []
    for current in range(len(masks)):
        if not alive[current]:
            continue
        owner[current] = len(kept)
        # Exact IoUs only where the boxes allow one above the limit: a few masks of thousands.
        bound = iou_bound(area[current], box[current], area[current + 1 :], box[current + 1 :])
        near = np.flatnonzero(alive[current + 1 :] & (bound > limits[current])) + current + 1
        if len(near):
            y0, y1 = box[current, 1], box[current, 3]
            # [near], rows of the box alone
            shared = popcount(words[near, y0:y1] & words[current, y0:y1]).sum((1, 2)).numpy()
            suppressed = near[shared / (area[near] + area[current] - shared) > limits[current]]
            alive[suppressed] = False
            owner[suppressed] = len(kept)
        kept.append(current)
    return kept, owner


def matches_any(masks: MaskSet, others: MaskSet, threshold: float) -> Tensor:
    """Whether some mask of `others` has IoU >= threshold with each of `masks`: bool [N]."""
    found = torch.zeros(len(masks), dtype=torch.bool, device=masks.words.device)
    if not len(masks) or not len(others):
        return found
    box, other_box = (boxes(m.words, m.width).cpu().numpy() for m in (masks, others))
    area, other_area = masks.areas.cpu().numpy()[:, None], others.areas.cpu().numpy()
    bound = iou_bound(area, box[:, None], other_area, other_box)  # [N, M]
    rows, columns = (torch.from_numpy(i).to(found.device) for i in np.nonzero((bound >= threshold) & (area > 0)))
    shared = pair_intersections(masks, others, rows, columns)
    iou = shared / (masks.areas[rows] + others.areas[columns] - shared)
    found[rows[iou >= threshold]] = True
    return found
