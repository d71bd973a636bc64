"""A video in, its entities out: offline by the published protocol, or online, frame by frame."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from entitysam.inference.logit_store import Spool
from entitysam.inference.online import Event, OnlineEntities
from entitysam.inference.panoptic import PanopticMerge
from entitysam.io.readers.source import Source, open_frames
from entitysam.ops import fill_holes
from entitysam.precision import autocast
from entitysam.structures import FrameOutput, VideoSegments

STATE_PERIOD = 50  # frames between saved states, where a spool folder is given


class FrameModel(Protocol):
    """What this module needs of a network (`entitysam.EntitySAM` has it)."""

    @property
    def device(self) -> Any: ...
    def initial_state(self) -> Any: ...
    def prepare(self, frame: np.ndarray) -> Tensor: ...
    def encode(self, images: Tensor) -> Any: ...
    def propagate(self, features: Any, state: Any) -> tuple[FrameOutput, Any]: ...


@dataclass(frozen=True)
class FrameResult:
    """One frame, segmented online.

    Attributes:
        index: number of the frame, from 0.
        frame: uint8 [H, W, 3] RGB.
        ids: int32 [H, W]; 0 = no entity. An entity keeps its id for the whole video.
        scores: id -> running confidence in 0..1, for the ids on this frame.
        events: entities born, lost and back on this frame.
    """

    index: int
    frame: np.ndarray
    ids: np.ndarray
    scores: dict[int, float]
    events: list[Event]


class SegmentedVideo:
    """A segmented video whose maps are made when they are asked for, from logits on disk.

    Attributes:
        num_frames, height, width: of the maps.
        scores: float32 [n] score of segment 1..n over the video.
        query_of_segment: int64 [n].
        frame_scores: float32 [n, T] score of each segment on each frame.
    """

    def __init__(self, spool: Spool, merged: PanopticMerge, device: torch.device, passes: np.ndarray):
        self._spool, self._merge, self._device = spool, merged, device
        self.num_frames = spool.num_frames
        self.height, self.width = merged.out_size
        self._decision = merged.decide(self._chunks)
        self.query_of_segment = self._decision.queries
        self.scores = merged.scores.numpy()[self.query_of_segment]
        self.frame_scores = passes[-self.num_frames :].T[self.query_of_segment]

    def _chunks(self) -> Iterator[Tensor]:
        return self._spool.chunks(self._device)

    def iter_ids(self) -> Iterator[np.ndarray]:
        """The entity maps, int32 [H, W] in order; memory does not depend on the video's length."""
        yield from self._merge.maps(self._chunks, self._decision)

    def iter_dense_ids(self, segments: Sequence[int]) -> Iterator[np.ndarray]:
        """Maps without gaps, int32 [H, W]: every pixel belongs to the one of `segments` that claims it most."""
        yield from self._merge.dense_maps(self._chunks, self._decision, segments)

    @property
    def ids(self) -> np.ndarray:
        """All maps at once, int32 [T, H, W]."""
        return np.stack(list(self.iter_ids()))

    def to_segments(self) -> VideoSegments:
        return VideoSegments(self.ids, self.scores, self.query_of_segment, self.frame_scores)


class VideoSegmenter:
    """Runs a model over videos.

    Args:
        model: an `EntitySAM` in eval mode, on its device.
        warmup_frames: extra passes over the first frame before the video starts (3 in the published evaluation; the paper
            recommends 2 for pictures).
        score_threshold, max_entities, overlap_threshold, mask_threshold: see `PanopticMerge`.
        hole_area: holes of at most so many cells are filled.
        amp: "fp32", "bf16" or "fp16" autocast.
        count_warmup: quirk 4: the warm-up passes count in an entity's mean score.
    """

    def __init__(
        self,
        model: FrameModel,
        *,
        warmup_frames: int = 3,
        score_threshold: float = 0.05,
        max_entities: int = 100,
        overlap_threshold: float = 0.7,
        mask_threshold: float = 0.5,
        hole_area: int = 8,
        amp: str = "fp32",
        count_warmup: bool = True,
    ):
        self.model = model
        self.warmup_frames = warmup_frames
        self.hole_area = hole_area
        self.amp = amp
        self._autocast()  # refuses an unknown precision
        self.count_warmup = count_warmup
        self.settings: dict[str, Any] = {
            "score_threshold": score_threshold,
            "max_entities": max_entities,
            "overlap_threshold": overlap_threshold,
            "mask_threshold": mask_threshold,
        }

    def _autocast(self) -> AbstractContextManager:
        return autocast(self.amp, self.model.device)

    def _passes(self, frame: np.ndarray, state: Any, first: bool) -> tuple[list[FrameOutput], Any]:
        """The passes over one frame, whose features are computed once, and the state behind them; the last one's masks count."""
        outputs = []
        with torch.inference_mode(), self._autocast():
            features = self.model.encode(self.model.prepare(frame)[None])[0]
            for _ in range(1 + self.warmup_frames if first else 1):
                output, state = self.model.propagate(features, state)
                outputs.append(output)
        return outputs, state

    def segment(
        self,
        frames: Iterable[np.ndarray],
        out_size: tuple[int, int] | None = None,
        on_frame: Callable[[], None] | None = None,
        spool: Path | None = None,
    ) -> SegmentedVideo:
        """Offline: the published protocol (spec section 2), with constant memory.

        Args:
            frames: uint8 [H, W, 3] RGB, from the video's first frame.
            out_size: (H, W) of the maps; that of the frames by default.
            on_frame: called after every frame.
            spool: folder for intermediate results. If it holds those of an interrupted run over the same frames with the
                same settings, the run continues there, to the same result.

        Raises:
            ValueError: no frames.
        """
        store = Spool(spool)
        on_frame = on_frame or (lambda: None)
        saved = store.load_state(self.model.device)
        state, done = self.model.initial_state(), 0
        if saved is not None:
            state, done = type(state)(**saved["state"]), saved["frames"]
            out_size = out_size or saved["out_size"]
            store.open(tuple(saved["shape"]), done, done + self.warmup_frames)
        for _ in range(done):
            on_frame()
        try:
            for index, frame in enumerate(islice(frames, done, None), start=done):
                out_size = out_size or (frame.shape[0], frame.shape[1])
                outputs, following = self._passes(frame, state, first=index == 0)
                if index == 0:
                    store.open(tuple(outputs[0].mask_logits.shape), 0, 0)  # type: ignore[arg-type]
                for output in outputs:
                    store.add_score(output.score)
                store.add_logits(fill_holes(outputs[-1].mask_logits, self.hole_area))
                state, done = following, index + 1
                if spool is not None and done % STATE_PERIOD == 0:
                    self._save(store, state, done, out_size)
                on_frame()
        except BaseException:
            if spool is not None and done:
                self._save(store, state, done, out_size)
            store.close()
            raise
        if not done or out_size is None:
            raise ValueError("no frames to segment")
        if spool is not None:
            self._save(store, state, done, out_size)
        return self._merged(store, out_size)

    def _save(self, store: Spool, state: Any, done: int, out_size: tuple[int, int] | None) -> None:
        store.save_state({"state": vars(state), "frames": done, "shape": store.shape, "out_size": out_size})

    def _merged(self, store: Spool, out_size: tuple[int, int]) -> SegmentedVideo:
        passes = store.scores()
        counted = passes if self.count_warmup else passes[self.warmup_frames :]
        mean = torch.from_numpy(counted).mean(0)
        return SegmentedVideo(store, PanopticMerge(mean, out_size, **self.settings), self.model.device, passes)

    def stream(self, frames: Iterable[np.ndarray], spool: Path | None = None) -> Generator[FrameResult, None, None]:
        """Online: one result per frame, as soon as the frame is there, without look-ahead.

        Args:
            frames: uint8 [H, W, 3] RGB.
            spool: folder for the state of an interrupted run; the results then go on after the last frame it finished. A
                frame is finished when the next one is asked for: until then it may be given again.
        """
        store = Spool(spool) if spool is not None else None
        saved = store.load_state(self.model.device) if store is not None else None
        entities = OnlineEntities(**self.settings)
        state, done = self.model.initial_state(), 0
        if saved is not None:
            state, done = type(state)(**saved["state"]), saved["frames"]
            entities.load_state(saved["entities"])
        finished = saved
        try:
            for index, frame in enumerate(islice(frames, done, None), start=done):
                outputs, state = self._passes(frame, state, first=index == 0)
                for output in outputs if self.count_warmup else outputs[-1:]:
                    entities.count(output.score)
                logits = fill_holes(outputs[-1].mask_logits, self.hole_area)
                ids, scores, events = entities.update(logits, frame.shape[:2])
                yield FrameResult(index, frame, ids, scores, events)
                finished = {"state": vars(state), "frames": index + 1, "entities": entities.state()}
        finally:
            if store is not None and finished is not None:
                store.save_state(finished)


def segment_video(model: FrameModel, source: Source, **settings: Any) -> VideoSegments:
    """Segments a video by the published protocol.

    Args:
        model: an `EntitySAM` in eval mode.
        source: a video file, a folder or glob of images, or a list or generator of uint8 [H, W, 3] RGB arrays or PIL
            images; see `entitysam.io.readers.source.open_frames`.
        settings: of `VideoSegmenter`; besides `stride` and `max_frames` of the reader.

    Returns:
        the entity maps of all frames and their scores.
    """
    reading = {key: settings.pop(key) for key in ("stride", "max_frames") if key in settings}
    with open_frames(source, **reading) as frames:
        return VideoSegmenter(model, **settings).segment(frames).to_segments()
