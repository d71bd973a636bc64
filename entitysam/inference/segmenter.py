"""Segmentation of a video: offline by the published protocol, or online frame by frame."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from entitysam.errors import ConfigError
from entitysam.inference.identity import Appearance, no_appearance, token_appearance
from entitysam.inference.keyframes import at_speed
from entitysam.inference.online import WINDOW, OnlineEntities
from entitysam.inference.panoptic import PanopticMerge
from entitysam.inference.resuming import OfflineRun, OnlineRun
from entitysam.inference.tracks import EntityTracks
from entitysam.io.readers.source import Source, open_frames
from entitysam.io.record_store import RecordStore
from entitysam.ops import fill_holes
from entitysam.precision import autocast
from entitysam.speed import speed_of
from entitysam.structures import Event, FrameOutput, VideoSegments

QUERIES, TRACKS = "queries", "tracks"
APPEARANCES: dict[str, Appearance] = {"tokens": token_appearance, "none": no_appearance}


class FrameModel(Protocol):
    """The methods of a network that this module calls; `entitysam.EntitySAM` has them."""

    @property
    def device(self) -> Any: ...
    @property
    def num_entities(self) -> int: ...
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
        ids: int32 [H, W]; 0 = no entity. An entity keeps its id for the whole video (see `inference.identity`).
        scores: id -> running confidence in 0..1, for the ids on this frame (see `inference.online`).
        events: entities born, lost, back and recycled on this frame.
        saturated: all queries show an entity, so that others may be missing.
    """

    index: int
    frame: np.ndarray
    ids: np.ndarray
    scores: dict[int, float]
    events: list[Event]
    saturated: bool = False


class SegmentedVideo:
    """A segmented video. Its maps are computed from the logits on disk when they are iterated.

    Args:
        run: a run over the whole video.
        merge: the merge of the mean scores of its queries, or of the entities of `tracks`.
        device: where maps are computed.
        tracks: of the entities; None where each query is one.
        dense: the maps are those of `iter_dense_ids`, with all segments.

    Attributes:
        num_frames, height, width: of the maps.
        scores: float32 [n] score of segment 1..n over the video.
        query_of_segment: int64 [n] the query behind each segment; of several, the one of most frames.
        frame_scores: float32 [n, T] score of each segment on each frame.
        saturated: every query is an entity of the maps, so that others may be missing.
    """

    def __init__(
        self,
        run: OfflineRun,
        merge: PanopticMerge,
        device: torch.device,
        tracks: EntityTracks | None = None,
        dense: bool = False,
    ):
        self._merge, self._dense = merge, dense
        self.num_frames = run.num_frames
        self._chunks = tracks.chunks if tracks else partial(run.logits.chunks, run.num_frames, device)
        self.height, self.width = merge.out_size
        self._decision = merge.decide(self._chunks)
        kept = self._decision.queries  # rows of the merge: queries or entities
        self.query_of_segment = kept if tracks is None else tracks.main_queries()[kept]
        self.scores = merge.scores.numpy()[kept]
        if tracks is None:
            # The last T passes are those of the frames; warm-up passes come before them. [T, Q] -> [n, T]
            self.frame_scores = run.scores().numpy()[-self.num_frames :].T[kept]
            self.saturated = len(kept) == len(merge.scores)
        else:
            self.frame_scores = tracks.frame_scores.numpy()[kept]
            self.saturated = bool(((tracks.queries >= 0).sum(0) == run.scores().shape[1]).any())

    def iter_ids(self) -> Iterator[np.ndarray]:
        """The entity maps, int32 [H, W] in order; memory does not depend on the length of the video."""
        if self._dense:
            yield from self.iter_dense_ids(range(1, len(self.scores) + 1))
        else:
            yield from self._merge.maps(self._chunks, self._decision)

    def iter_dense_ids(self, segments: Sequence[int]) -> Iterator[np.ndarray]:
        """Maps without background, int32 [H, W]: every pixel belongs to the most probable one of `segments`."""
        yield from self._merge.dense_maps(self._chunks, self._decision, segments)

    @property
    def ids(self) -> np.ndarray:
        """All maps at once, int32 [T, H, W]."""
        return np.stack(list(self.iter_ids()))

    def to_segments(self) -> VideoSegments:
        """The whole result in memory."""
        return VideoSegments(self.ids, self.scores, self.query_of_segment, self.frame_scores)


class VideoSegmenter:
    """Runs a model over videos.

    Args:
        model: an `EntitySAM` in eval mode, on its device.
        warmup_frames: extra passes over the first frame before the video starts (3 in the published evaluation; the paper
            recommends 2 for images).
        score_threshold, max_entities, overlap_threshold, mask_threshold: see `PanopticMerge`.
        hole_area: holes of at most so many cells are filled.
        amp: "fp32", "bf16" or "fp16" autocast.
        count_warmup: quirk 4: the warm-up passes count in the score of an entity.
        online_window: passes over which `stream` takes the median score (see `OnlineEntities`).
        fast: level of speed, 0 = exact to 3 (see `entitysam.speed`).
        compile: run the network by `torch.compile` (see `inference.compiled`); the first frames take minutes then.
        appearance: what ids compare online and by tracks: "tokens" of the network, "none", or another `Appearance`
            (`engine.methods.appearance` has MASA's).
        ids: what an entity of `segment` is: a query, as published ("queries"), or what the masks of one or several queries
            follow ("tracks", see `inference.tracks`); None = what the network asks for.
        dense: of `segment`: every pixel belongs to the most probable entity, however improbable; no pixel is background.

    Raises:
        ConfigError: unknown `amp`, `fast`, `appearance` or `ids`; `compile` with an exported model.
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
        online_window: int = WINDOW,
        fast: int = 0,
        compile: bool = False,
        appearance: str | Appearance = "tokens",
        ids: str | None = None,
        dense: bool = False,
    ):
        self.dense = dense
        self.ids = ids or getattr(model, "ids", QUERIES)
        if self.ids not in (QUERIES, TRACKS):
            raise ConfigError(f"ids: {QUERIES} or {TRACKS}, not '{self.ids}'")
        if isinstance(appearance, str) and appearance not in APPEARANCES:
            raise ConfigError(f"appearance: one of {', '.join(APPEARANCES)} or a function, not '{appearance}'")
        autocast(amp, model.device)  # raises for an unknown precision
        self.model: FrameModel = at_speed(model, speed_of(fast), compile)
        self.warmup_frames = warmup_frames
        self.hole_area = hole_area
        self.amp = amp
        self.count_warmup = count_warmup
        self.online_window = online_window
        self.appearance = APPEARANCES[appearance] if isinstance(appearance, str) else appearance
        self.settings: dict[str, Any] = {
            "score_threshold": score_threshold,
            "max_entities": max_entities,
            "overlap_threshold": overlap_threshold,
            "mask_threshold": mask_threshold,
        }

    @property
    def num_queries(self) -> int:
        """Q, the largest number of entities at a time."""
        return self.model.num_entities

    def _passes(self, frame: np.ndarray, state: Any, first: bool) -> tuple[list[FrameOutput], Any, Any]:
        """All passes over one frame, the state after them, and the features, computed once; the last masks count."""
        outputs = []
        with torch.inference_mode(), autocast(self.amp, self.model.device):
            features = self.model.encode(self.model.prepare(frame)[None])[0]
            for _ in range(1 + self.warmup_frames if first else 1):
                output, state = self.model.propagate(features, state)
                outputs.append(output)
        return outputs, state, features

    def segment(
        self,
        frames: Iterable[np.ndarray],
        out_size: tuple[int, int] | None = None,
        on_frame: Callable[[], None] | None = None,
        records: RecordStore | None = None,
    ) -> SegmentedVideo:
        """Offline: the published protocol (spec section 2), in constant memory; ids by `ids`.

        The mask logits of all frames are kept on disk, in the folder of `records` or in the temporary folder
        (`inference.logit_store` gives their size).

        Args:
            frames: uint8 [H, W, 3] RGB, from the first frame of the video.
            out_size: (H, W) of the maps; that of the frames by default.
            on_frame: called after every frame.
            records: store of a resumable run. If it holds an interrupted run, the run continues there, to the same
                result; its fingerprint makes sure that frames and settings are the same.

        Raises:
            ValueError: no frames.
            OutputError: the logits do not fit on the disk.
        """
        on_frame = on_frame or (lambda: None)
        run = OfflineRun(self.model.initial_state(), self.model.device, records, out_size)
        with run.saved():
            for frame in run.remaining(frames, on_frame):
                outputs, state, features = self._passes(frame, run.state, first=run.num_frames == 0)
                mask_logits = fill_holes(outputs[-1].mask_logits, self.hole_area)
                self._keep_appearance(run, frame, features, mask_logits)
                run.add(state, [output.score for output in outputs], mask_logits, (frame.shape[0], frame.shape[1]))
                on_frame()
        if not run.num_frames or run.out_size is None:
            raise ValueError("no frames to segment")
        passes = run.scores() if self.count_warmup else run.scores()[self.warmup_frames :]
        if self.ids == QUERIES or run.num_frames == 1:
            merge = PanopticMerge(passes.mean(0), run.out_size, **self.settings)
            return SegmentedVideo(run, merge, self.model.device, dense=self.dense)
        chunks = partial(run.logits.chunks, run.num_frames, self.model.device)
        tracks = EntityTracks(chunks, run.scores()[-run.num_frames :], run.logits.read_appearance, **self.settings)
        every = {**self.settings, "max_entities": len(tracks.scores)}  # the limit is one of each frame here
        merge = PanopticMerge(tracks.scores, run.out_size, skip_absent=True, **every)
        return SegmentedVideo(run, merge, self.model.device, tracks, self.dense)

    def _keep_appearance(self, run: OfflineRun, frame: np.ndarray, features: Any, mask_logits: Tensor) -> None:
        """Stores what the queries of the next frame show, where ids depend on it."""
        if self.ids == TRACKS:
            with torch.inference_mode():
                appearance = self.appearance(frame, features, mask_logits)
            if appearance is not None:
                run.logits.write_appearance(run.num_frames, appearance)

    def stream(
        self, frames: Iterable[np.ndarray], records: RecordStore | None = None
    ) -> Generator[FrameResult, None, None]:
        """Online: one result per frame, as soon as the frame is there, without look-ahead.

        Args:
            frames: uint8 [H, W, 3] RGB.
            records: store of a resumable run. If it holds an interrupted run, the results continue after its last finished
                frame. A frame is finished when the next one is requested: until then it may be yielded again.
        """
        entities = OnlineEntities(window=self.online_window, **self.settings)
        run = OnlineRun(self.model.initial_state(), self.model.device, records, entities)
        with run.saved():
            for index, frame in run.remaining(frames):
                outputs, state, features = self._passes(frame, run.state, first=index == 0)
                for output in outputs if self.count_warmup else outputs[-1:]:
                    entities.count(output.score)
                mask_logits = fill_holes(outputs[-1].mask_logits, self.hole_area)
                with torch.inference_mode():
                    appearance = self.appearance(frame, features, mask_logits)
                ids, scores, events = entities.update(mask_logits, frame.shape[:2], appearance)
                yield FrameResult(index, frame, ids, scores, events, entities.saturated)
                run.finish_frame(state)


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
