"""What a training data set yields, before augmentation."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass
class ImageSample:
    """One annotated image.

    Attributes:
        image: uint8 [H, W, 3] RGB.
        ids: int32 [H, W]; 0 = void, entities are 1..n.
        categories: category id of every entity id.
        source: the image's file, for messages.
    """

    image: np.ndarray
    ids: np.ndarray
    categories: dict[int, int]
    source: str


@dataclass
class OutlineSample:
    """One image whose instances may overlap.

    Attributes:
        image: uint8 [H, W, 3] RGB.
        outlines: float32 [P_i, 2] corners (x, y) of the convex hull of each instance's mask, in pixels, in order; pixel
            (0, 0) covers [0, 1) x [0, 1).
        source: the image's file, for messages.
    """

    image: np.ndarray
    outlines: list[np.ndarray]
    source: str


@dataclass
class VideoSample:
    """Consecutive annotated frames; an entity keeps its id.

    Attributes:
        frames: uint8 [T, H, W, 3] RGB.
        ids: int32 [T, H, W]; 0 = void, entities are 1..n.
        categories: category id of every entity id.
        source: the first frame's file, for messages.
    """

    frames: np.ndarray
    ids: np.ndarray
    categories: dict[int, int]
    source: str


class ImageDataset(Protocol):
    """Annotated images by position."""

    def __len__(self) -> int: ...

    def load(self, index: int) -> ImageSample: ...


class VideoDataset(Protocol):
    """Annotated pieces of video by position."""

    def __len__(self) -> int: ...

    def load(self, index: int) -> VideoSample: ...


def compact_ids(ids: np.ndarray, listed: np.ndarray) -> np.ndarray:
    """Renumbers an id map by a list.

    Args:
        ids: integer [...], any values.
        listed: integer [n], distinct.

    Returns:
        int32 [...]: position in `listed` counted from 1; 0 where an id is not listed.
    """
    if not len(listed):
        return np.zeros(ids.shape, np.int32)
    order = np.argsort(listed)
    in_order = np.asarray(listed)[order]
    place = np.minimum(np.searchsorted(in_order, ids), len(listed) - 1)
    return np.where(in_order[place] == ids, order[place] + 1, 0).astype(np.int32)
