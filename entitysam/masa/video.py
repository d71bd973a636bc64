"""MASA over a video: detections of each frame in, tracks out, frame by frame and without look-ahead."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from entitysam.inference.online import Event
from entitysam.masa.journal import Sighting, SightingJournal
from entitysam.masa.tracker import NOT_TRACKED, Candidates, Tracker, TrackerState
from entitysam.structures import Detections

PATIENCE = 3  # a track is reported lost after so many frames unseen, as entities are (`inference.online`)

NOTHING = Detections.of(np.zeros((0, 4)))

Detect = Callable[[int, np.ndarray], Detections]  # (number of the frame, uint8 [H, W, 3] RGB) -> what is seen on it


class EmbeddingModel(Protocol):
    """What this module needs of a network; `masa.model.MASA` has it."""

    def encode(self, image: Tensor) -> Any: ...
    def embed(self, features: Any, boxes: Tensor) -> Tensor: ...
    def propose(self, features: Any, limit: int = 300) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class TrackedFrame:
    """One frame, tracked.

    Attributes:
        index: number of the frame, from 0.
        frame: uint8 [H, W, 3] RGB.
        ids: int64 [N] > 0, each at most once; a track keeps its id for the whole video.
        objects: the N detections behind the ids, as they were given.
        events: tracks born, lost and back on this frame.
    """

    index: int
    frame: np.ndarray
    ids: np.ndarray
    objects: Detections
    events: list[Event]


class VideoTracker:
    """Tracks the detections of a video, the network's own proposals, or both together.

    Args:
        tracker: Algorithm 1.
        model: gives embeddings; None where the tracker needs none.
        device: where the model is.
        proposals: at most so many of the network's own proposals are added on every frame.

    Attributes:
        warnings: what was wrong with the detections so far, and how often.

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
        self, frames: Iterable[np.ndarray], detect: Detect | None = None, journal: SightingJournal | None = None
    ) -> Iterator[TrackedFrame]:
        """One result per frame, as soon as it is there.

        Args:
            frames: uint8 [H, W, 3] RGB, in order.
            detect: what is seen on a frame; None = nothing but the own proposals. Boxes that are empty or nowhere on
                the frame, and scores that are no numbers, are left out and counted in `warnings`.
            journal: of an interrupted run over the same frames with the same settings: its frames are not looked at
                again, and the result is the same.
        """
        state = TrackerState.initial()
        for index, frame in enumerate(frames):
            sighting = journal.read(index) if journal is not None else None
            if sighting is None:
                sighting = self.look(frame, detect(index, frame) if detect else NOTHING)
                if journal is not None:
                    journal.write(index, sighting)
            result, state = self.follow(state, index, frame, sighting)
            yield result

    def step(
        self, state: TrackerState, index: int, frame: np.ndarray, seen: Detections
    ) -> tuple[TrackedFrame, TrackerState]:
        """One frame: its number, pixels and detections, after the frames that made `state`.

        Raises:
            ValueError: frames out of order; a network that gives numbers that are not finite.
        """
        return self.follow(state, index, frame, self.look(frame, seen))

    @torch.inference_mode()
    def look(self, frame: np.ndarray, seen: Detections) -> Sighting:
        """What can be tracked on a frame uint8 [H, W, 3], and what it looks like; the past plays no part in it."""
        size = frame.shape[:2]
        features = None
        if self.model is not None and (len(seen) or self.proposals):
            features = self.model.encode(torch.from_numpy(frame).permute(2, 0, 1).to(self.device).float())
        if self.proposals:
            seen = seen + self._propose(features)
        usable, left_out = check_usable(seen, size)
        seen = seen[usable]
        embeddings = None
        if self.model is not None and len(seen):
            visible = torch.from_numpy(on_frame(seen.boxes, size)).to(self.device).float()
            embeddings = self.model.embed(features, visible).float().cpu().numpy()
        return Sighting(seen, embeddings, left_out)

    def follow(
        self, state: TrackerState, index: int, frame: np.ndarray, sighting: Sighting
    ) -> tuple[TrackedFrame, TrackerState]:
        """Associates what was seen on frame `index` with the tracks of `state`; raises like `step`."""
        self.warnings.update(sighting.left_out)
        seen = sighting.objects
        embeddings = None if sighting.embeddings is None else torch.from_numpy(sighting.embeddings)
        boxes, scores, categories = (torch.from_numpy(v) for v in (seen.boxes, seen.scores, seen.categories))
        ids, after = self.tracker.step(state, Candidates(boxes, scores, embeddings, categories), index)
        tracked = ids != NOT_TRACKED
        self.warnings["detections that are duplicates or too weak, not tracked"] += int((~tracked).sum())
        events = find_events(state, after, ids[tracked])
        return TrackedFrame(index, frame, ids[tracked], seen[tracked], events), after

    def _propose(self, features: Any) -> Detections:
        assert self.model is not None
        boxes, scores = self.model.propose(features, self.proposals)
        return Detections.of(boxes.cpu().double().numpy(), scores.cpu().double().numpy())


def check_usable(seen: Detections, size: tuple[int, ...]) -> tuple[np.ndarray, dict[str, int]]:
    """bool [N]: the detection can be looked at on a frame of `size` (H, W); and why others cannot, and how many."""
    inside = on_frame(seen.boxes, size)
    has_pixels = np.isfinite(seen.boxes).all(1) & (inside[:, 2:] > inside[:, :2]).all(1)
    has_score = np.isfinite(seen.scores)
    left_out = {
        "detections whose box is empty or not on the frame, left out": int((~has_pixels).sum()),
        "detections whose score is no number, left out": int((has_pixels & ~has_score).sum()),
    }
    return has_pixels & has_score, left_out


def on_frame(boxes: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """The parts of boxes [N, 4] xyxy that are on a frame of `size` (H, W); empty where there is none."""
    return np.clip(boxes, 0, [size[1], size[0], size[1], size[0]])


def find_events(before: TrackerState, after: TrackerState, ids: np.ndarray) -> list[Event]:
    """What happened to the tracks between two states.

    Args:
        before, after: states around a frame.
        ids: int64 [N] of the tracks on that frame.
    """
    last = dict(zip(before.ids.tolist(), before.last_seen.tolist()))
    events = [Event("born", number) for number in ids.tolist() if number >= before.next_id]
    away = [n for n in ids.tolist() if n < before.next_id and after.frame - last[n] > PATIENCE]
    events += [Event("back", number) for number in away]
    present = {*ids.tolist(), NOT_TRACKED}
    for number, seen in last.items():
        if number not in present and before.frame - seen < PATIENCE <= after.frame - seen:
            events.append(Event("lost", number))
    return events
