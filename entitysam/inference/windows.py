"""Windows: a video of any length by the published protocol, window by window.

Each window of frames is a run of its own. Neighbouring windows share some frames; entities that overlap there get one id.
The result does not depend on how many windows are computed at the same time. One window that holds the whole video gives
the result of `VideoSegmenter.segment`. Where there are several, the entities of a window are followed apart from its queries
(`FollowedWindow`).
"""

import copy
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from entitysam.inference.identity import Appearance, EntityRegistry, Impostors, has_returned
from entitysam.inference.segmenter import TRACKS, FrameModel, SegmentedVideo, VideoSegmenter
from entitysam.inference.tiles import TiledVideo
from entitysam.ops import ids_to_rgb, rgb_to_ids
from entitysam.structures import FrameOutput

OVERLAP = 8  # frames that neighbouring windows share, at most half a window
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


class Window(Protocol):
    """A segmented window: `WindowRun`, or `PackedWindow` where another process computes it.

    Attributes:
        num_frames: T.
        scores: float32 [n] score of entity 1..n over the window.
        frame_scores: float32 [n, T] likewise, on each frame.
        saturated: all queries show an entity, so that others may be missing.
        embeddings: [n, C] appearance of the entities, of unit length; None where the network gives none.
        frame_embeddings: float16 [T, n, C] the same on each frame, zeros where it is unknown.
        is_followed: its entities are apart from its queries already (`inference.tracks`).
    """

    num_frames: int
    scores: np.ndarray
    frame_scores: np.ndarray
    saturated: bool
    embeddings: Tensor | None
    frame_embeddings: Tensor | None
    is_followed: bool

    def iter_ids(self) -> Iterator[np.ndarray]:
        """int32 [H, W] maps of entities 1..n, in order."""
        ...


class WindowedVideo:
    """Segments a video while it is iterated, with the logits of a window on disk and the shared frames in memory.

    Args:
        segmenters: one, or several of the same network and settings on different devices. They compute as many windows at
            the same time, whose frames are then in memory.
        frames: uint8 [H, W, 3] RGB.
        length: frames of a window.
        overlap: frames that neighbouring windows share; by default `OVERLAP`, at most half a window.
        grid: (R, C) tiles of the frame (see `inference.tiles`); the frames of a window are then in memory, and overlap
            alone decides about ids.
        second_pass: see `inference.tiles.TiledVideo`.

    Attributes:
        scores: id -> mean score over its frames; complete after the iteration.

    Raises:
        ValueError: windows that are not longer than their overlap.
    """

    def __init__(
        self,
        segmenters: Sequence[VideoSegmenter],
        frames: Iterable[np.ndarray],
        length: int,
        overlap: int | None = None,
        grid: tuple[int, int] = (1, 1),
        second_pass: bool = False,
    ) -> None:
        overlap = check_overlap(length, overlap)
        self._segmenters, self._grid, self._second_pass = segmenters, grid, second_pass
        self._frames = FrameWindows(frames, length, overlap)
        self._merge = WindowMerge(overlap)

    @property
    def scores(self) -> dict[int, float]:
        return self._merge.scores

    def __iter__(self) -> Iterator[FrameMap]:
        """Yields the frames in order.

        Raises:
            ValueError: no frames.
        """
        for run, is_last in self._runs():
            yield from self._merge.add(run, is_last)

    def _runs(self) -> Iterator[tuple["WindowRun", bool]]:
        """The windows in order, and whether each is the last one."""
        count, started = len(self._segmenters), 0
        if count == 1:
            while self._frames.has_more or not started:
                started = 1
                run = WindowRun(self._segmenters[0], self._frames.take(), self._grid, self._second_pass)
                yield run, not self._frames.has_more
            return
        pending: deque[tuple[Future[WindowRun], bool]] = deque()
        with ThreadPoolExecutor(count) as pool:
            while self._frames.has_more or pending or not started:
                while len(pending) < count and (self._frames.has_more or not started):
                    frames, segmenter = list(self._frames.take()), self._segmenters[started % count]
                    run_later = pool.submit(WindowRun, segmenter, frames, self._grid, self._second_pass)
                    pending.append((run_later, not self._frames.has_more))
                    started += 1
                future, is_last = pending.popleft()
                yield future.result(), is_last


def check_overlap(length: int, overlap: int | None = None) -> int:
    """The overlap of windows of `length` frames: the given one, or the default.

    Raises:
        ValueError: the windows are not longer than their overlap.
    """
    overlap = min(OVERLAP, length // 2) if overlap is None else overlap
    if not 1 <= overlap < length:
        raise ValueError(f"windows of {length} frames are not longer than their overlap of {overlap} (at least 1)")
    return overlap


def window_ranges(num_frames: int, length: int, overlap: int | None = None) -> list[range]:
    """The frames of each window, as `WindowedVideo` cuts them.

    Raises:
        ValueError: no frames; windows that are not longer than their overlap.
    """
    overlap = check_overlap(length, overlap)
    if num_frames < 1:
        raise ValueError("no frames to segment")
    step = length - overlap
    return [range(start, min(start + length, num_frames)) for start in range(0, max(num_frames - overlap, 1), step)]


def segment_window(
    segmenter: VideoSegmenter,
    frames: Iterable[np.ndarray],
    grid: tuple[int, int] = (1, 1),
    second_pass: bool = False,
) -> "PackedWindow":
    """Segments one window, e.g. in a process of its own. `WindowMerge` puts the windows of a video together.

    The frames of `window_ranges` in any number of processes give, digit for digit, the result of `WindowedVideo`.

    Args:
        segmenter, grid, second_pass: as for `WindowedVideo`.
        frames: uint8 [H, W, 3] RGB, of the window.
    """
    run = WindowRun(segmenter, frames, grid, second_pass)
    maps = [pack_map(ids) for ids in run.iter_ids()]
    return PackedWindow(
        run.num_frames,
        run.scores,
        run.frame_scores,
        run.saturated,
        run.embeddings,
        run.frame_embeddings,
        run.is_followed,
        maps,
    )


@dataclass(frozen=True)
class PackedWindow:
    """A window as plain data, which can be pickled; see `Window`.

    Attributes:
        maps: PNG of each map.
    """

    num_frames: int
    scores: np.ndarray
    frame_scores: np.ndarray
    saturated: bool
    embeddings: Tensor | None
    frame_embeddings: Tensor | None
    is_followed: bool
    maps: list[bytes]

    def iter_ids(self) -> Iterator[np.ndarray]:
        return (unpack_map(png) for png in self.maps)


def pack_map(ids: np.ndarray) -> bytes:
    return cv2.imencode(".png", ids_to_rgb(ids), [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def unpack_map(png: bytes) -> np.ndarray:
    rgb = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    return rgb_to_ids(np.asarray(rgb))


class FollowedWindow:
    """A window whose entities are those of an `EntityRegistry`: a query that goes to another entity starts another id.

    Args:
        window: the segmented window, with one entity per query. Its maps are computed twice, so that no map is kept.

    Attributes: as of `Window`; the score of an entity is the mean over the frames on which it is visible.
    """

    def __init__(self, window: Window) -> None:
        self._window = window
        self.num_frames, self.saturated = window.num_frames, window.saturated
        looks = window.frame_embeddings
        registry, rows = EntityRegistry(), []
        for index, ids in enumerate(window.iter_ids()):
            embeddings = None if looks is None else F.normalize(looks[index].float(), dim=1)
            rows.append(registry.assign(ids, torch.from_numpy(window.frame_scores[:, index]), embeddings)[0])
        id_of = np.stack(rows)  # [T, n + 1] id of each segment of the window on each frame; 0 = not visible
        numbers, compact = np.unique(id_of, return_inverse=True)
        self._id_of = compact.reshape(id_of.shape).astype(np.int32)  # 0 is there: segment 0 is the background
        shape = len(numbers), self.num_frames
        self.frame_scores = np.zeros(shape, np.float32)
        total = None if looks is None else torch.zeros(len(numbers), looks.shape[-1])
        for time, row in enumerate(self._id_of):
            shown = np.flatnonzero(row)
            self.frame_scores[row[shown], time] = window.frame_scores[shown - 1, time]
            if total is not None and looks is not None:
                total[row[shown]] += looks[time, shown - 1].float()
        visible = (self._id_of[..., None] == np.arange(1, len(numbers))).any(1)  # [T, m]
        self.frame_scores = self.frame_scores[1:]
        self.scores = self.frame_scores.sum(1) / np.maximum(visible.sum(0), 1)
        self.embeddings = None if total is None else F.normalize(total[1:], dim=1)
        self.frame_embeddings: Tensor | None = None
        self.is_followed = True

    def iter_ids(self) -> Iterator[np.ndarray]:
        return (row[ids] for row, ids in zip(self._id_of, self._window.iter_ids()))


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


class FrameWindows:
    """Cuts an iteration of frames into windows; only the frames shared with the next window are kept.

    Attributes:
        has_more: whether frames are left after the windows taken so far.
    """

    def __init__(self, frames: Iterable[np.ndarray], length: int, overlap: int) -> None:
        self._frames, self._length, self._overlap = iter(frames), length, overlap
        self._shared: list[np.ndarray] = []
        self._next = next(self._frames, None)

    @property
    def has_more(self) -> bool:
        return self._next is not None

    def take(self) -> Iterator[np.ndarray]:
        """The frames of the next window; to be iterated to its end."""
        shared = deque(self._shared, maxlen=self._overlap)
        yield from self._shared
        for _ in range(self._length - len(self._shared)):
            if self._next is None:
                break
            frame, self._next = self._next, next(self._frames, None)
            shared.append(frame)
            yield frame
        self._shared = list(shared)


class WindowRun:
    """One window, segmented by the published protocol, with its logits on disk; attributes as for `Window`."""

    def __init__(
        self, segmenter: VideoSegmenter, frames: Iterable[np.ndarray], grid: tuple[int, int], second_pass: bool = False
    ) -> None:
        self._video: SegmentedVideo | TiledVideo
        self.embeddings: Tensor | None = None
        self.frame_embeddings: Tensor | None = None
        self.is_followed = segmenter.ids == TRACKS
        if grid != (1, 1):
            held = list(frames)
            if not held:
                raise ValueError("no frames to segment")
            size = held[0].shape[0], held[0].shape[1]
            self._video = TiledVideo(segmenter, held, size, grid, second_pass=second_pass)
        else:
            recorder = AppearanceRecorder(segmenter.model, segmenter.appearance)
            recording = copy.copy(segmenter)
            recording.model = recorder
            self._video = recording.segment(frames)
            if recorder.total is not None:
                self.embeddings = F.normalize(recorder.total, dim=1)[self._video.query_of_segment]
                self.frame_embeddings = torch.stack(recorder.frames)[:, self._video.query_of_segment]
        self.num_frames, self.saturated = self._video.num_frames, self._video.saturated
        self.scores, self.frame_scores = self._video.scores, self._video.frame_scores

    def iter_ids(self) -> Iterator[np.ndarray]:
        return self._video.iter_ids()


class AppearanceRecorder:
    """A network that keeps the appearance of its queries.

    Args:
        model: the network.
        appearance: of what its queries show.

    Attributes:
        total: [Q, C] sum over all passes; None before the first frame, and where there is no appearance.
        frames: float16 [Q, C] per frame; empty where there is no appearance.
    """

    def __init__(self, model: FrameModel, appearance: Appearance) -> None:
        self._model, self._appearance = model, appearance
        self._frame = np.zeros((0, 0, 3), np.uint8)
        self.total: Tensor | None = None
        self.frames: list[Tensor] = []
        self._is_new = True  # whether no pass over the current frame is kept

    @property
    def device(self) -> Any:
        return self._model.device

    @property
    def num_entities(self) -> int:
        return self._model.num_entities

    def initial_state(self) -> Any:
        return self._model.initial_state()

    def prepare(self, frame: np.ndarray) -> Tensor:
        self._frame, self._is_new = frame, True
        return self._model.prepare(frame)

    def encode(self, images: Tensor) -> Any:
        return self._model.encode(images)

    def propagate(self, features: Any, state: Any) -> tuple[FrameOutput, Any]:
        output, state = self._model.propagate(features, state)
        appearance = self._appearance(self._frame, features, output.mask_logits)
        if appearance is not None:
            self.total = appearance if self.total is None else self.total + appearance
            if not self._is_new:
                self.frames.pop()  # of a warm-up pass
            self.frames.append(appearance.half())
            self._is_new = False
        return output, state


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
