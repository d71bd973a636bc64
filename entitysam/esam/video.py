"""E-SAM per frame with IoU association: a training-free, class-agnostic video baseline."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from entitysam.esam.segmenter import ESAM


@dataclass
class LinkedFrame:
    """Entities of one frame, with ids that are linked over frames.

    Attributes:
        ids: int32 [H, W]; 0 = no entity, otherwise the id of an entity, equal on all its frames.
        scores: score of every id on this frame, 0..1.
    """

    ids: np.ndarray
    scores: dict[int, float]


def segment_frames(
    method: ESAM, frames: Iterable[np.ndarray], min_iou: float = 0.5, max_gap: int = 0
) -> Iterator[LinkedFrame]:
    """Segments each frame independently and links entities by mask IoU.

    Args:
        method: E-SAM, or SAM's automatic masks (all modules disabled).
        frames: uint8 [H, W, 3] RGB, all of one size.
        min_iou: minimum IoU with an entity's last mask to keep its id (ours).
        max_gap: maximum number of frames without a match before an id ends (ours).

    Yields:
        the frames in order.

    Raises:
        ValueError: frames of different sizes.
    """
    linker = IoULinker(min_iou, max_gap)
    for frame in frames:
        found = method.segment(frame)
        yield linker.link(found.ids, found.scores)


class IoULinker:
    """Matches the entities of each frame one to one with earlier entities.

    The matching has the highest total IoU (Hungarian assignment) among pairs of at least `min_iou`.
    """

    def __init__(self, min_iou: float = 0.5, max_gap: int = 0):
        self.min_iou = min_iou
        self.max_gap = max_gap
        self._last: np.ndarray | None = None  # id whose last mask covers each pixel
        self._seen: dict[int, int] = {}  # id -> frame on which it was last seen
        self._frame = 0
        self._next_id = 1

    def link(self, ids: np.ndarray, scores: np.ndarray) -> LinkedFrame:
        """Links one frame.

        Args:
            ids: int [H, W] entities of this frame alone, 1..n; 0 = none.
            scores: [n] their scores.

        Raises:
            ValueError: the frame differs in size from the one before.
        """
        if self._last is None:
            self._last = np.zeros(ids.shape, np.int32)
        if ids.shape != self._last.shape:
            raise ValueError(f"frame {self._frame} is {ids.shape[::-1]}, the one before {self._last.shape[::-1]}")
        known = np.array([i for i, seen in self._seen.items() if self._frame - seen <= self.max_gap + 1], np.int64)
        iou = overlap_iou(ids, self._last, len(scores), known)
        rows, columns = linear_sum_assignment(np.where(iou >= self.min_iou, iou, 0.0), maximize=True)
        linked = np.zeros(len(scores) + 1, np.int32)
        for row, column in zip(rows, columns):
            if iou[row, column] >= self.min_iou:
                linked[row + 1] = known[column]
        fresh = np.flatnonzero(linked[1:] == 0) + 1
        linked[fresh] = np.arange(self._next_id, self._next_id + len(fresh))
        self._next_id += len(fresh)
        return self._remember(linked[ids], linked[1:], scores)

    def _remember(self, ids: np.ndarray, linked: np.ndarray, scores: np.ndarray) -> LinkedFrame:
        assert self._last is not None
        present = set(linked.tolist())
        # Unmatched entities keep the pixels that no other entity takes; matched entities keep only their new pixels.
        stale = np.isin(self._last, list(present)) | (ids > 0)
        self._last = np.where(stale, ids, self._last)
        self._seen.update(dict.fromkeys(present, self._frame))
        self._frame += 1
        return LinkedFrame(ids, dict(zip(linked.tolist(), np.asarray(scores, float).tolist())))


def overlap_iou(ids: np.ndarray, last: np.ndarray, count: int, known: np.ndarray) -> np.ndarray:
    """IoU of the entities 1..count of one map [H, W] with the ids `known` [M] of another: float64 [count, M]."""
    column = np.zeros(int(max(last.max(initial=0), known.max(initial=0))) + 1, np.int64)
    column[known] = np.arange(1, len(known) + 1)
    joint = ids.astype(np.int64) * (len(known) + 1) + column[last]
    table = np.bincount(joint.ravel(), minlength=(count + 1) * (len(known) + 1)).reshape(count + 1, -1)
    shared = table[1:, 1:]
    union = table.sum(1)[1:, None] + table.sum(0)[None, 1:] - shared
    return np.divide(shared, union, out=np.zeros(shared.shape), where=union > 0)
