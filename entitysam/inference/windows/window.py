"""One window of a video, segmented as a video of its own."""

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from entitysam.inference.identity import Appearance, EntityRegistry
from entitysam.inference.segmenter import TRACKS, FrameModel, SegmentedVideo, VideoSegmenter
from entitysam.inference.tiles import TiledVideo
from entitysam.inference.wrapped import WrappedModel
from entitysam.ops import ids_to_rgb, rgb_to_ids
from entitysam.structures import FrameOutput


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


class AppearanceRecorder(WrappedModel):
    """A network that keeps the appearance of its queries.

    Args:
        model: the network.
        appearance: of what its queries show.

    Attributes:
        total: [Q, C] sum over all passes; None before the first frame, and where there is no appearance.
        frames: float16 [Q, C] per frame; empty where there is no appearance.
    """

    def __init__(self, model: FrameModel, appearance: Appearance) -> None:
        super().__init__(model)
        self._appearance = appearance
        self._frame = np.zeros((0, 0, 3), np.uint8)
        self.total: Tensor | None = None
        self.frames: list[Tensor] = []
        self._is_new = True  # whether no pass over the current frame is kept

    def prepare(self, frame: np.ndarray) -> Tensor:
        self._frame, self._is_new = frame, True
        return self.model.prepare(frame)

    def propagate(self, features: Any, state: Any) -> tuple[FrameOutput, Any]:
        output, state = self.model.propagate(features, state)
        appearance = self._appearance(self._frame, features, output.mask_logits)
        if appearance is not None:
            self.total = appearance if self.total is None else self.total + appearance
            if not self._is_new:
                self.frames.pop()  # of a warm-up pass
            self.frames.append(appearance.half())
            self._is_new = False
        return output, state


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
