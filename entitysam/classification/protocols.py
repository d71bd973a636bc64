"""Turns labelled entities into the segments of a class-specific task.

| task | segments |
| --- | --- |
| `vps` video panoptic | one segment per thing; all entities of a stuff class are one segment per video |
| `vss` video semantic | every pixel belongs to the mask of highest probability (argmax), without a threshold |
| `vis` video instance | one segment per entity; score = entity score x class confidence; background is dropped |

Entities of unknown class are left out.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from entitysam.classification.classifier import Answer
from entitysam.classification.labels import BACKGROUND, Label, labels_of


class Entities(Protocol):
    """The entities of a video. A method may also have `iter_dense_ids(entities)`, which assigns every pixel to one of them.

    Attributes:
        scores: float [n], of the entities 1..n.
    """

    @property
    def scores(self) -> np.ndarray: ...
    def iter_ids(self) -> Iterator[np.ndarray]: ...


@dataclass(frozen=True)
class NamedVideo:
    """The segments of a task.

    Attributes:
        maps: returns the id maps of the entities, int [H, W] with ids 0..n.
        segment_of: int32 [n + 1], segment of each entity, 0 = none; several entities may share a segment.
        scores: float [m], of the segments 1..m.
        categories: int64 [m], category ids of the segments 1..m.
    """

    maps: Callable[[], Iterator[np.ndarray]]
    segment_of: np.ndarray
    scores: np.ndarray
    categories: np.ndarray

    def iter_ids(self) -> Iterator[np.ndarray]:
        """Segment maps, int32 [H, W]; 0 = none."""
        for ids in self.maps():
            yield self.segment_of[ids]


def task_labels(task: str, categories: Sequence[Mapping[str, Any]]) -> tuple[Label, ...]:
    """The class list of a task on a data set; instance segmentation has an additional background class.

    Raises:
        ConfigError: see `labels_of`.
    """
    labels = labels_of(categories)
    return (*labels, BACKGROUND) if task == "vis" else labels


def video_panoptic(video: Entities, answers: Sequence[Answer], labels: Sequence[Label]) -> NamedVideo:
    """See the table. The score of a merged segment is the maximum over its entities."""
    groups: dict[Any, list[int]] = {}
    for entity, label in enumerate(chosen_labels(answers, labels), start=1):
        if label is not None:
            key = ("thing", entity) if label.is_thing else ("stuff", label.category_id)
            groups.setdefault(key, []).append(entity)
    return _grouped(video.iter_ids, list(groups.values()), video.scores, answers, labels)


def video_semantic(video: Entities, answers: Sequence[Answer], labels: Sequence[Label]) -> NamedVideo:
    """See the table. Methods without soft masks leave pixels 0, which the writer fills from the nearest segment."""
    found = chosen_labels(answers, labels)
    named = [entity for entity, label in enumerate(found, start=1) if label is not None]
    dense = getattr(video, "iter_dense_ids", None)
    maps = video.iter_ids if dense is None else lambda: dense(named)
    return _grouped(maps, [[entity] for entity in named], video.scores, answers, labels)


def video_instances(video: Entities, answers: Sequence[Answer], labels: Sequence[Label]) -> NamedVideo:
    """See the table."""
    found = enumerate(chosen_labels(answers, labels), start=1)
    kept = [[entity] for entity, label in found if label is not None and not label.is_background]
    confidence = np.array([answer.confidence for answer in answers])
    return _grouped(video.iter_ids, kept, video.scores * confidence, answers, labels)


PROTOCOLS = {"vps": video_panoptic, "vss": video_semantic, "vis": video_instances}


def chosen_labels(answers: Sequence[Answer], labels: Sequence[Label]) -> list[Label | None]:
    """The class of each entity; None = unknown."""
    return [None if answer.index is None else labels[answer.index] for answer in answers]


def _grouped(
    maps: Callable[[], Iterator[np.ndarray]],
    groups: Sequence[Sequence[int]],
    scores: np.ndarray,
    answers: Sequence[Answer],
    labels: Sequence[Label],
) -> NamedVideo:
    """Forms one segment per group; all entities of a group have the same class."""
    segment_of = np.zeros(len(answers) + 1, np.int32)
    for segment, entities in enumerate(groups, start=1):
        segment_of[list(entities)] = segment
    found = chosen_labels(answers, labels)
    categories = [label.category_id for group in groups if (label := found[group[0] - 1]) is not None]
    best = [max(scores[entity - 1] for entity in group) for group in groups]
    return NamedVideo(maps, segment_of, np.array(best, float), np.array(categories, np.int64))
