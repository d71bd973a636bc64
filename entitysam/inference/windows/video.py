"""Windows: a video of any length by the published protocol, window by window.

Each window of frames is a run of its own. Neighbouring windows share some frames; entities that overlap there get one id.
The result does not depend on how many windows are computed at the same time. One window that holds the whole video gives
the result of `VideoSegmenter.segment`. Where there are several, the entities of a window are followed apart from its queries
(`window.FollowedWindow`).
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from entitysam.inference.segmenter import VideoSegmenter
from entitysam.inference.windows.merge import FrameMap, WindowMerge
from entitysam.inference.windows.window import WindowRun

OVERLAP = 8  # frames that neighbouring windows share, at most half a window


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
