"""MASA over a video: detections of each frame in, tracks out, online (no look-ahead)."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from entitysam.masa.detection_cache import DetectionCache, FrameDetections
from entitysam.masa.tracker import NOT_TRACKED, Candidates, Tracker, TrackerState
from entitysam.structures import Detections, Event

PATIENCE = 3  # frames without a match after which a track is reported lost, the same as in `inference.online`

EMPTY = Detections.of(np.zeros((0, 4)))

Detect = Callable[[int, np.ndarray], Detections]  # (frame number, uint8 [H, W, 3] RGB) -> detections


class EmbeddingModel(Protocol):
    """The part of `masa.model.MASA` that tracking uses."""

    def encode(self, image: Tensor) -> Any: ...
    def embed(self, features: Any, boxes: Tensor) -> Tensor: ...
    def propose(self, features: Any, limit: int = 300) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class TrackedFrame:
    """Tracking result of one frame.

    Attributes:
        index: number of the frame, from 0.
        frame: uint8 [H, W, 3] RGB.
        ids: int64 [N] > 0, unique; a track keeps its id over the whole video.
        objects: the N detections with these ids, unchanged.
        events: tracks that are born, lost or back on this frame.
    """

    index: int
    frame: np.ndarray
    ids: np.ndarray
    objects: Detections
    events: list[Event]


class VideoTracker:
    """Tracks given detections, the network's own proposals, or both.

    Args:
        tracker: Algorithm 1.
        model: computes embeddings; None if the tracker needs none.
        device: device of the model.
        proposals: maximum number of the network's own proposals that are added per frame.

    Attributes:
        warnings: reason -> number of detections that were not tracked.

    Raises:
        ValueError: no model, but embeddings or proposals are needed.
    """

    def __init__(
        self,
        tracker: Tracker,
        model: EmbeddingModel | None = None,
        device: torch.device | str = "cpu",
        proposals: int = 0,
    ) -> None:
        if model is None and (proposals or tracker.settings.similarity != "iou"):
            raise ValueError("embeddings and proposals need a network; only IoU association does without")
        self.tracker = tracker
        self.model = model
        self.device = torch.device(device)
        self.proposals = proposals
        self.warnings: Counter[str] = Counter()

    def stream(
        self, frames: Iterable[np.ndarray], detect: Detect | None = None, cache: DetectionCache | None = None
    ) -> Iterator[TrackedFrame]:
        """Yields one result per frame.

        Args:
            frames: uint8 [H, W, 3] RGB, in order.
            detect: detections of a frame; None = only the network's own proposals. Boxes without pixels on the frame
                and scores that are not finite are left out and counted in `warnings`.
            cache: of an interrupted run over the same frames with the same settings. Its frames are not encoded again;
                the result is the same.
        """
        state = TrackerState.initial()
        for index, frame in enumerate(frames):
            found = cache.read(index) if cache is not None else None
            if found is None:
                found = self.embed_frame(frame, detect(index, frame) if detect else EMPTY)
                if cache is not None:
                    cache.write(index, found)
            result, state = self.associate(state, index, frame, found)
            yield result

    def step(
        self, state: TrackerState, index: int, frame: np.ndarray, detections: Detections
    ) -> tuple[TrackedFrame, TrackerState]:
        """Tracks one frame.

        Args:
            state: state after the previous frame.
            index: frame number.
            frame: uint8 [H, W, 3] RGB.
            detections: detections on the frame.

        Raises:
            ValueError: frames out of order, or embeddings that are not finite.
        """
        return self.associate(state, index, frame, self.embed_frame(frame, detections))

    @torch.inference_mode()
    def embed_frame(self, frame: np.ndarray, detections: Detections) -> FrameDetections:
        """Adds proposals, drops unusable detections and computes embeddings. Independent of other frames."""
        size = frame.shape[:2]
        features = None
        if self.model is not None and (len(detections) or self.proposals):
            image = torch.from_numpy(frame).permute(2, 0, 1)  # [H, W, 3] -> [3, H, W]
            features = self.model.encode(image.to(self.device).float())
        if self.proposals:
            detections = detections + self._propose(features)
        usable, rejected = check_usable(detections, size)
        detections = detections[usable]
        embeddings = None
        if self.model is not None and len(detections):
            boxes = torch.from_numpy(clip_to_frame(detections.boxes, size)).to(self.device).float()  # [N, 4]
            embeddings = self.model.embed(features, boxes).float().cpu().numpy()  # [N, C]
        return FrameDetections(detections, embeddings, rejected)

    def associate(
        self, state: TrackerState, index: int, frame: np.ndarray, found: FrameDetections
    ) -> tuple[TrackedFrame, TrackerState]:
        """Associates the detections of frame `index` with the tracks of `state`; raises the same errors as `step`."""
        self.warnings.update(found.rejected)
        objects = found.objects
        embeddings = None if found.embeddings is None else torch.from_numpy(found.embeddings)
        boxes, scores, categories = (torch.from_numpy(v) for v in (objects.boxes, objects.scores, objects.categories))
        ids, after = self.tracker.step(state, Candidates(boxes, scores, embeddings, categories), index)
        tracked = ids != NOT_TRACKED  # [N]
        self.warnings["detections that are duplicates or too weak, not tracked"] += int((~tracked).sum())
        events = find_events(state, after, ids[tracked])
        return TrackedFrame(index, frame, ids[tracked], objects[tracked], events), after

    def _propose(self, features: Any) -> Detections:
        assert self.model is not None
        boxes, scores = self.model.propose(features, self.proposals)
        return Detections.of(boxes.cpu().double().numpy(), scores.cpu().double().numpy())


def check_usable(detections: Detections, size: tuple[int, ...]) -> tuple[np.ndarray, dict[str, int]]:
    """Which detections have pixels on a frame of `size` (H, W) and a finite score.

    Returns:
        bool [N], and reason -> number of the others.
    """
    inside = clip_to_frame(detections.boxes, size)
    has_pixels = np.isfinite(detections.boxes).all(1) & (inside[:, 2:] > inside[:, :2]).all(1)
    has_score = np.isfinite(detections.scores)
    rejected = {
        "detections whose box is empty or not on the frame, left out": int((~has_pixels).sum()),
        "detections whose score is no number, left out": int((has_pixels & ~has_score).sum()),
    }
    return has_pixels & has_score, rejected


def clip_to_frame(boxes: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Boxes [N, 4] (x1, y1, x2, y2) in pixels, clipped to a frame of `size` (H, W); outside it they become empty."""
    return np.clip(boxes, 0, [size[1], size[0], size[1], size[0]])


def find_events(before: TrackerState, after: TrackerState, ids: np.ndarray) -> list[Event]:
    """Tracks born, back and lost between two states.

    Args:
        before, after: states around a frame.
        ids: int64 [N] ids on that frame.
    """
    last_seen = dict(zip(before.ids.tolist(), before.last_seen.tolist()))
    events = [Event("born", number) for number in ids.tolist() if number >= before.next_id]
    returned = [n for n in ids.tolist() if n < before.next_id and after.frame - last_seen[n] > PATIENCE]
    events += [Event("back", number) for number in returned]
    present = {*ids.tolist(), NOT_TRACKED}
    for number, frame in last_seen.items():
        # Only the frame on which the gap reaches PATIENCE reports the loss.
        if number not in present and before.frame - frame < PATIENCE <= after.frame - frame:
            events.append(Event("lost", number))
    return events
