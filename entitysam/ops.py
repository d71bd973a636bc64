"""Shared operations on masks, boxes and points. Pure functions; device and dtype are those of the input."""

from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask
from torch import Tensor


def point_sample(maps: Tensor, points_norm: Tensor, mode: str = "bilinear") -> Tensor:
    """Samples maps at points.

    Args:
        maps: [B, C, H, W].
        points_norm: [B, P, 2] as (x, y) in [0, 1] x [0, 1], where 0 and 1 are the outer borders of the map.
        mode: "bilinear" or "nearest"; values outside the map are 0.

    Returns:
        [B, C, P].
    """
    grid = 2.0 * points_norm.unsqueeze(2).to(maps.dtype) - 1.0
    return F.grid_sample(maps, grid, mode=mode, align_corners=False).squeeze(3)


def fill_holes(mask_logits: Tensor, max_area: int = 8, value: float = 0.1) -> Tensor:
    """Fills small holes of masks with a weakly positive logit (SAM 2's post-processing, at the resolution of the logits).

    Args:
        mask_logits: [.., h, w].
        max_area: 8-connected regions of logit <= 0 with at most this many cells are holes; 0 fills nothing.
        value: logit of a filled cell.

    Returns:
        a new tensor of the same shape. On a CPU OpenCV labels the regions; elsewhere nothing is copied to the host.
    """
    filled = mask_logits.clone()
    if max_area <= 0:
        return filled
    flat = filled.flatten(0, -3) if filled.ndim > 2 else filled[None]  # [N, h, w]
    if filled.device.type != "cpu":
        return filled.masked_fill_(small_regions(flat <= 0, max_area).view_as(filled), value)
    background = (flat <= 0).to(torch.uint8).cpu().numpy()
    for mask, empty in zip(flat, background):
        count, labels, stats, _ = cv2.connectedComponentsWithStats(empty, connectivity=8)
        small = stats[:, cv2.CC_STAT_AREA] <= max_area
        small[0] = False  # label 0 is everything but the regions
        if count > 1 and small.any():
            mask[torch.from_numpy(small[labels]).to(mask.device)] = value
    return filled


def small_regions(cells: Tensor, max_area: int) -> Tensor:
    """8-connected regions of few cells, by tensor operations alone.

    Every cell starts with a number of its own and takes the largest one of its neighbourhood, `max_area` times. All cells
    of a region of at most `max_area` cells then have the same number. In a larger region a number may have few cells as
    well, but some of them touch a cell with another number.

    Args:
        cells: bool [N, h, w].
        max_area: largest number of cells of a small region.

    Returns:
        bool [N, h, w]: the cells of small regions.
    """
    count, height, width = cells.shape
    numbers = torch.arange(1.0, height * width + 1, device=cells.device).view(height, width)  # exact up to 2^24 cells
    labels = numbers * cells  # [N, h, w]; 0 outside the regions
    for _ in range(max_area):
        labels = F.max_pool2d(labels[:, None], 3, stride=1, padding=1)[:, 0] * cells
    largest = F.max_pool2d(labels[:, None], 3, stride=1, padding=1)[:, 0]
    unsettled = cells & (largest != labels)  # touches a larger number: its region has more than max_area cells
    index = labels.long().flatten(1)  # [N, h * w]
    size = torch.zeros(count, height * width + 1, device=cells.device)
    area = size.scatter_add(1, index, cells.flatten(1).to(size.dtype))
    excluded = size.scatter_add(1, index, unsettled.flatten(1).to(size.dtype))
    small = (area <= max_area) & (excluded == 0)
    return small.gather(1, index).view_as(cells) & cells


def mask_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of every mask of `a` with every mask of `b`; all intersections are one matrix product.

    Args:
        a: bool [N, ...]; b: bool [M, ...] with the same trailing shape.

    Returns:
        float32 [N, M]; 0 where both are empty.
    """
    a, b = a.flatten(1).float(), b.flatten(1).float()
    intersection = a @ b.T
    union = a.sum(1)[:, None] + b.sum(1)[None] - intersection
    return intersection / union.clamp(min=1)


def mask_to_box(mask: np.ndarray) -> list[int]:
    """Box [x, y, width, height] in pixels around the True pixels of [H, W]; zeros for an empty mask (COCO convention)."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return [0, 0, 0, 0]
    return [int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)]


def rle_encode(mask: np.ndarray) -> dict[str, Any]:
    """COCO run-length code of a mask [H, W], with `counts` as text, as JSON needs it."""
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(n) for n in rle["size"]], "counts": rle["counts"].decode("ascii")}


def rle_decode(rle: dict[str, Any]) -> np.ndarray:
    """bool [H, W] mask of a COCO run-length code, compressed or not."""
    if isinstance(rle["counts"], list):
        rle = coco_mask.frPyObjects(rle, *rle["size"])
    return coco_mask.decode(rle).astype(bool)


def rle_area(rle: dict[str, Any]) -> int:
    """Pixels of a compressed COCO run-length code."""
    return int(coco_mask.area(rle))


def ids_to_rgb(ids: np.ndarray) -> np.ndarray:
    """Segment ids [H, W] in 0..2^24-1 -> uint8 [H, W, 3] with id = R + 256 G + 65536 B."""
    return np.stack([ids & 255, (ids >> 8) & 255, (ids >> 16) & 255], axis=-1).astype(np.uint8)


def rgb_to_ids(rgb: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] -> int32 [H, W] with id = R + 256 G + 65536 B."""
    ids = rgb[..., 2].astype(np.int32)
    for channel in (1, 0):
        ids <<= 8
        ids |= rgb[..., channel]
    return ids
