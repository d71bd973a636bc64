"""Windows of a video, put together: ids over all of them."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from entitysam.inference.identity import Impostors, has_returned
from entitysam.inference.windows.window import FollowedWindow, Window

STITCH_IOU = 0.3  # lowest tube IoU of an entity in both windows
CAPACITY = 1000  # entities whose appearance is remembered


@dataclass(frozen=True)
class FrameMap:
    """The entities of a frame.

    Attributes:
        ids: int32 [H, W]; 0 = no entity.
        scores: id -> score on this frame, for the entities of its window.
        saturated: all queries show an entity in this window, so that others may be missing.
    """

    ids: np.ndarray
    scores: dict[int, float]
    saturated: bool = False


class WindowMerge:
    """Puts the windows of a video together, in their order.

    Args:
        overlap: frames that neighbouring windows share.
        follow: follow the entities of a window apart from its queries (see `FollowedWindow`), unless the window is the whole
            video.

    Attributes:
        scores: id -> mean score over its frames, of the windows so far.
    """

    def __init__(self, overlap: int, follow: bool = True) -> None:
        self._overlap, self._follow, self._is_first = overlap, follow, True
        self._stitcher = WindowStitcher()
        self._tail: list[np.ndarray] = []  # the maps that the last window shares with the next one
        self._totals: dict[int, tuple[float, int]] = {}  # id -> sum of the scores, number of frames

    @property
    def scores(self) -> dict[int, float]:
        return {number: total / count for number, (total, count) in sorted(self._totals.items())}

    def add(self, window: Window, is_last: bool) -> Iterator[FrameMap]:
        """Yields the frames of the next window, from the middle of those that it shares with the one before."""
        if self._follow and not window.is_followed and not (self._is_first and is_last):
            window = FollowedWindow(window)
        self._is_first = False
        maps = window.iter_ids()
        head = [next(maps) for _ in self._tail]
        id_of = self._stitcher.stitch(self._tail, head, window.embeddings, len(window.scores))
        self._count(window, id_of)
        first, end = len(head) // 2, window.num_frames
        # The next window yields from the middle of the frames that it shares with this one.
        last = end if is_last else end - self._overlap + self._overlap // 2
        shared = deque(head, maxlen=self._overlap)
        for index in range(end):
            ids = id_of[head[index] if index < len(head) else next(maps)]
            if index >= len(head):
                shared.append(ids)
            else:
                shared[index] = ids
            if first <= index < last:
                scores = zip(id_of[1:].tolist(), window.frame_scores[:, index].tolist())
                yield FrameMap(ids, dict(scores), window.saturated)
        self._tail = list(shared)

    def _count(self, window: Window, id_of: np.ndarray) -> None:
        for number, score in zip(id_of[1:].tolist(), window.scores.tolist()):
            total, count = self._totals.get(number, (0.0, 0))
            self._totals[number] = (total + score * window.num_frames, count + window.num_frames)


class WindowStitcher:
    """Assigns the entities of each window to those of the windows before it.

    Entities that overlap in the shared frames with a tube IoU of at least `STITCH_IOU` are the same (Hungarian matching on
    IoU + similarity). An entity without a partner that looks like one of an earlier window has returned (see
    `has_returned`). All others are new.
    """

    def __init__(self) -> None:
        self._embeddings: dict[int, Tensor] = {}  # id -> [C], longest unseen first
        self._impostors = Impostors()
        self._last_id = 0

    def stitch(
        self, before: Sequence[np.ndarray], after: Sequence[np.ndarray], embeddings: Tensor | None, count: int
    ) -> np.ndarray:
        """Adds a window.

        Args:
            before: int32 [H, W] maps of the shared frames in the window before, with global ids; none for the first.
            after: the same frames in the new window, with its ids 1..n.
            embeddings: [n, C] appearance of its entities.
            count: n.

        Returns:
            int32 [n + 1] the global id of each id of the window.
        """
        known = sorted({*self._embeddings, *(int(i) for ids in before for i in np.unique(ids) if i)})
        id_of = np.zeros(count + 1, np.int32)
        if embeddings is not None:  # the entities of a window are different
            own = embeddings.numpy()
            self._impostors.add((own @ own.T)[~np.eye(len(own), dtype=bool)])
        if known and count:
            from scipy.optimize import linear_sum_assignment  # slow to import; not every run needs it

            affinity = self._affinity(known, tube_iou(before, after, known, count), embeddings)
            for row, column in zip(*linear_sum_assignment(-affinity)):
                if affinity[row, column] > 0:
                    id_of[row + 1] = known[column]
        is_new = id_of[1:] == 0
        id_of[1:][is_new] = self._last_id + 1 + np.arange(is_new.sum())
        self._last_id += int(is_new.sum())
        self._remember(id_of[1:].tolist(), embeddings)
        return id_of

    def _affinity(self, known: list[int], iou: np.ndarray, embeddings: Tensor | None) -> np.ndarray:
        """float64 [n, m] of the window's entities and the known ones; 0 = they may not be paired."""
        similarity = np.full(iou.shape, np.nan)
        columns = [column for column, number in enumerate(known) if number in self._embeddings]
        if embeddings is not None and columns:
            others = np.stack([self._embeddings[known[column]].numpy() for column in columns])
            similarity[:, columns] = embeddings.numpy() @ others.T
        affinity = np.where(has_returned(similarity, impostors=self._impostors), similarity, 0.0)
        return np.where(iou >= STITCH_IOU, 2 + iou + np.nan_to_num(similarity), affinity)

    def _remember(self, ids: list[int], embeddings: Tensor | None) -> None:
        if embeddings is None:
            return
        for number, embedding in zip(ids, embeddings):
            if embedding.any():
                self._embeddings.pop(number, None)
                self._embeddings[number] = embedding.clone()
        for number in list(self._embeddings)[: max(len(self._embeddings) - CAPACITY, 0)]:
            del self._embeddings[number]


def tube_iou(before: Sequence[np.ndarray], after: Sequence[np.ndarray], known: list[int], count: int) -> np.ndarray:
    """IoU over all frames of ids 1..n in `after` and the ids `known` in `before`: float64 [n, m]."""
    column_of = {number: column + 1 for column, number in enumerate(known)}
    shared = np.zeros((count + 1, len(known) + 1), np.int64)  # row and column 0: background
    for old, new in zip(before, after, strict=True):
        numbers, position = np.unique(old, return_inverse=True)
        columns = np.array([column_of.get(int(number), 0) for number in numbers])[position].reshape(old.shape)
        cells = new.astype(np.int64) * shared.shape[1] + columns
        shared += np.bincount(cells.ravel(), minlength=shared.size).reshape(shared.shape)
    union = shared.sum(1, keepdims=True) + shared.sum(0, keepdims=True) - shared
    return (shared / np.maximum(union, 1))[1:, 1:]
