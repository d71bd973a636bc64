"""Re-identification: gives an entity that leaves a segmented video and returns under a new id its first id again.

A segmentation network may assign a returning entity to another query. Each new entity is compared with all entities seen
before it by MASA's similarity (supplement, Eq. 1). If it matches one that is no longer visible, the two are merged. Only
ids change, so per-frame metrics are not affected.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from entitysam.masa import similarity
from entitysam.masa.video import EmbeddingModel

BETA = 0.5  # minimum similarity, as in the tracker's settings


class SegmentedFrames(Protocol):
    """A segmented video, e.g. `inference.segmenter.SegmentedVideo`: maps of entities 1..n and their scores."""

    @property
    def num_frames(self) -> int: ...
    @property
    def scores(self) -> np.ndarray: ...
    @property
    def frame_scores(self) -> np.ndarray: ...
    def iter_ids(self) -> Iterator[np.ndarray]: ...


@dataclass
class TrackSummary:
    """Appearance and lifetime of an entity.

    Attributes:
        first, last: first and last frame on which it is visible.
        total: [C] sum of its embeddings.
        count: number of embeddings.
    """

    first: int
    last: int
    total: Tensor
    count: int = 0

    @property
    def embedding(self) -> Tensor:
        return self.total / max(self.count, 1)

    def merge(self, later: "TrackSummary") -> None:
        """Adds a later summary of the same entity."""
        self.last = max(self.last, later.last)
        self.total, self.count = self.total + later.total, self.count + later.count


@dataclass
class TrackSummaries:
    """Summaries of all entities of a video, and the ids on each frame.

    Attributes:
        of: id -> summary.
        present: ids on each frame.
    """

    of: dict[int, TrackSummary] = field(default_factory=dict)
    present: list[list[int]] = field(default_factory=list)

    def add(self, ids: list[int], embeddings: Tensor) -> None:
        """Appends a frame: the ids [N] on it and their embeddings [N, C]."""
        frame = len(self.present)
        self.present.append(ids)
        for number, embedding in zip(ids, embeddings):
            summary = self.of.setdefault(number, TrackSummary(frame, frame, torch.zeros_like(embedding)))
            summary.last = frame
            summary.total = summary.total + embedding
            summary.count += 1


class MergedVideo:
    """A segmented video with changed ids.

    Args:
        segmented: the video.
        new_id: id -> id; a merged entity has the highest score of its parts.

    Attributes:
        num_frames, scores [n], frame_scores [n, T]: as for the video; still n entities, merged ids have no pixels.
    """

    def __init__(self, segmented: SegmentedFrames, new_id: dict[int, int]) -> None:
        self._segmented = segmented
        count = len(segmented.scores)
        self._table = np.array([0, *(new_id.get(number, number) for number in range(1, count + 1))], np.int32)
        self.num_frames = segmented.num_frames
        self.scores = np.array(segmented.scores)
        self.frame_scores = np.array(segmented.frame_scores)
        for old, new in new_id.items():
            self.scores[new - 1] = max(self.scores[new - 1], self.scores[old - 1])
            self.frame_scores[new - 1] = np.maximum(self.frame_scores[new - 1], self.frame_scores[old - 1])

    def iter_ids(self) -> Iterator[np.ndarray]:
        """The maps, int32 [H, W] in order."""
        return (self._table[ids] for ids in self._segmented.iter_ids())


class Reidentifier:
    """Merges entities that return under a new id.

    Args:
        model: a MASA in eval mode.
        device: device of the model.
        beta: minimum similarity (Eq. 1) of a new entity and one that has left.
    """

    def __init__(self, model: EmbeddingModel, device: torch.device | str = "cpu", beta: float = BETA) -> None:
        self.model = model
        self.device = torch.device(device)
        self.beta = beta

    def merge(
        self, frames: Iterable[np.ndarray], segmented: SegmentedFrames, on_frame: Callable[[], None] | None = None
    ) -> MergedVideo:
        """The video with the first id of each returning entity.

        Args:
            frames: uint8 [H, W, 3] RGB, the frames of `segmented`.
            segmented: the segmented video.
            on_frame: called after every frame.
        """
        summaries = TrackSummaries()
        for frame, ids in zip(frames, segmented.iter_ids()):
            numbers, boxes = entity_boxes(ids)
            summaries.add(numbers, self._embed(frame, boxes))
            if on_frame is not None:
                on_frame()
        return MergedVideo(segmented, find_returned(summaries, self.beta))

    @torch.inference_mode()
    def _embed(self, frame: np.ndarray, boxes: np.ndarray) -> Tensor:
        if not len(boxes):
            return torch.zeros(0, 1)
        image = torch.from_numpy(frame).permute(2, 0, 1).to(self.device).float()
        features = self.model.encode(image)
        return self.model.embed(features, torch.from_numpy(boxes).to(self.device).float()).float().cpu()


def entity_boxes(ids: np.ndarray) -> tuple[list[int], np.ndarray]:
    """The ids [N] on a map [H, W], ascending, and their boxes float64 [N, 4] xyxy in pixels."""
    numbers, boxes = [], []
    for index, place in enumerate(ndimage.find_objects(ids)):
        if place is not None:
            rows, columns = place
            numbers.append(index + 1)
            boxes.append([columns.start, rows.start, columns.stop, rows.stop])
    return numbers, np.array(boxes, float).reshape(-1, 4)


def find_returned(summaries: TrackSummaries, beta: float = BETA) -> dict[int, int]:
    """New id -> first id of each entity that returns.

    For each frame with new entities, all entities on it are candidates and all seen before it are tracks (Eq. 1). Pairs of
    a new candidate and a track that is no longer visible are merged greedily by descending similarity.
    """
    new_id: dict[int, int] = {}
    alive = dict(summaries.of)
    for frame, present in enumerate(summaries.present):
        new_ids = [number for number in present if summaries.of[number].first == frame]
        known = [number for number, summary in alive.items() if summary.first < frame]
        if not new_ids or not known:
            continue
        candidates = torch.stack([summaries.of[number].embedding for number in present])
        scores = similarity.appearance(candidates, torch.stack([alive[number].embedding for number in known]))  # [N, M]
        # Entities that stay compete in the softmax of Eq. 1, but only new ones are renamed.
        for row, column in _best_first(scores, beta):
            new, old = present[row], known[column]
            if new in new_ids and new not in new_id and alive[old].last < frame:
                new_id[new] = old
                alive[old].merge(alive.pop(new))
    return new_id


def _best_first(scores: Tensor, beta: float) -> list[tuple[int, int]]:
    """(row, column) of the scores above beta in descending order."""
    order = scores.flatten().argsort(descending=True, stable=True)
    kept = order[scores.flatten()[order] > beta]
    return [divmod(int(place), scores.shape[1]) for place in kept]
