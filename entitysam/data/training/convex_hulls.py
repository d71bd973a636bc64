"""Instances as convex hulls: warping an image warps a few corners per instance instead of masks, which may overlap.

The box of an affinely warped mask equals the box of its warped hull. Only if the border of a view cuts a mask that is not
convex, the box can be slightly too large.
"""

import cv2
import numpy as np

from entitysam.data.images import DataError
from entitysam.data.training.samples import ImageSample, OutlineSample

CORNERS = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)  # of pixel (0, 0)


def mask_outline(mask: np.ndarray) -> np.ndarray:
    """float32 [P, 2] corners (x, y) of the convex hull of a mask [H, W], with pixels as unit squares; [0, 2] if empty."""
    rows = np.flatnonzero(mask.any(1))
    if not len(rows):
        return np.zeros((0, 2), np.float32)
    inside = mask[rows].astype(bool)
    left, right = inside.argmax(1), mask.shape[1] - inside[:, ::-1].argmax(1)
    # The hull of a mask is the hull of the first and the last pixel of every row.
    ends = np.stack([left, rows, right - 1, rows], axis=1).reshape(-1, 2).astype(np.float32)  # [2 rows, 2] (x, y)
    return cv2.convexHull((ends[:, None] + CORNERS).reshape(-1, 2))[:, 0]


def box_outline(box: np.ndarray) -> np.ndarray:
    """float32 [4, 2] corners of a box (x1, y1, x2, y2)."""
    x1, y1, x2, y2 = box
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32)


def as_outlines(sample: ImageSample | OutlineSample) -> OutlineSample:
    """The sample with the hulls of its entities.

    Raises:
        DataError: the sample is a video.
    """
    if isinstance(sample, OutlineSample):
        return sample
    if not isinstance(sample, ImageSample):
        raise DataError(f"{sample.source}: mapper 'two_views' takes images, not videos")
    present = np.unique(sample.ids)
    outlines = [mask_outline(sample.ids == number) for number in present[present > 0]]
    return OutlineSample(sample.image, outlines, sample.source)


def clipped_box(outline: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Box of the intersection of a convex outline [P, 2] and a window.

    Args:
        window: (x1, y1, x2, y2).

    Returns:
        float32 [4] (x1, y1, x2, y2); zeros if they do not intersect.
    """
    low, high = outline.min(0), outline.max(0)
    if (low >= window[:2]).all() and (high <= window[2:]).all():
        return np.concatenate([low, high]).astype(np.float32)
    area, shared = cv2.intersectConvexConvex(outline.astype(np.float32), box_outline(window))
    if area <= 0 or shared is None:
        return np.zeros(4, np.float32)
    low, high = shared[:, 0].min(0), shared[:, 0].max(0)  # a millionth of a pixel outside in some versions of OpenCV
    return np.concatenate([np.maximum(low, window[:2]), np.minimum(high, window[2:])]).astype(np.float32)


def warped(outline: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Applies an affine map [2, 3] to an outline [P, 2]."""
    return (outline @ affine[:, :2].T + affine[:, 2]).astype(np.float32)
