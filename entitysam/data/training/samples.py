"""Samples of training sets, before augmentation."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass
class ImageSample:
    """An annotated image.

    Attributes:
        image: uint8 [H, W, 3] RGB.
        ids: int32 [H, W]; 0 = void, entities are 1..n.
        categories: entity id -> category id.
        source: file of the image, for messages.
    """

    image: np.ndarray
    ids: np.ndarray
    categories: dict[int, int]
    source: str


@dataclass
class OutlineSample:
    """An image with instances that may overlap.

    Attributes:
        image: uint8 [H, W, 3] RGB.
        outlines: per instance float32 [P_i, 2] corners (x, y) of the convex hull of its mask, in pixels, in order;
            pixel (0, 0) covers [0, 1) x [0, 1).
        source: file of the image, for messages.
    """

    image: np.ndarray
    outlines: list[np.ndarray]
    source: str


@dataclass
class VideoSample:
    """Consecutive annotated frames; ids are constant over time.

    Attributes:
        frames: uint8 [T, H, W, 3] RGB.
        ids: int32 [T, H, W]; 0 = void, entities are 1..n.
        categories: entity id -> category id.
        source: file of the first frame, for messages.
    """

    frames: np.ndarray
    ids: np.ndarray
    categories: dict[int, int]
    source: str


class ImageDataset(Protocol):
    """Indexed annotated images."""

    def __len__(self) -> int: ...

    def load(self, index: int) -> ImageSample: ...


class VideoDataset(Protocol):
    """Indexed annotated clips of videos."""

    def __len__(self) -> int: ...

    def load(self, index: int) -> VideoSample: ...


def compact_ids(ids: np.ndarray, listed: np.ndarray) -> np.ndarray:
    """Renumbers ids consecutively.

    Args:
        ids: integer [...], any values.
        listed: integer [n], distinct.

    Returns:
        int32 [...] position in `listed`, counted from 1; 0 for ids that are not listed.
    """
    if not len(listed):
        return np.zeros(ids.shape, np.int32)
    order = np.argsort(listed)
    in_order = np.asarray(listed)[order]
    place = np.minimum(np.searchsorted(in_order, ids), len(listed) - 1)
    return np.where(in_order[place] == ids, order[place] + 1, 0).astype(np.int32)
