"""Segmentation and tracking quality: STQ (Weber et al., STEP, arXiv 2102.11859) and its class-agnostic STQ^EN.

STQ = sqrt(AQ x IoU), with the conventions of the VIPSeg and EntitySAM evaluators. Two of them are surprising: the id
that a video lists first counts as crowd if it is a thing (in STQ^EN it always is), and the ignore class enters the mean
IoU with 0 as soon as one labelled pixel is predicted as void.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from entitysam.evaluation.evaluator import EvaluationError, Evaluator
from entitysam.evaluation.segments import SegmentTable
from entitysam.evaluation.videos import PanopticSequence, PanopticVideo
from entitysam.registry import EVALUATORS

IGNORE_LABEL = 255


@dataclass(frozen=True)
class STQCounts:
    """Record of one video.

    Attributes:
        intersection, union: int64 [C + 1] pixels per class; the last is the ignore class.
        association: sum over annotated tubes of their association quality, 0..tubes.
        tubes: number of scored annotated tubes.
        frames: length of the video.
    """

    intersection: np.ndarray
    union: np.ndarray
    association: float
    tubes: int
    frames: int


class TrackingQuality(Evaluator[PanopticVideo, STQCounts]):
    """STQ over `num_classes` classes, of which `things` are tracked. Fractions.

    Args:
        name: of the metric; prefix of its parts.
        num_classes: category ids are in 0..num_classes-1.
        things: ids of the tracked categories.
    """

    def __init__(self, name: str, num_classes: int, things: Sequence[int]) -> None:
        super().__init__()
        self.name = name
        self.num_classes = num_classes
        self.things = np.unique(np.asarray(things, np.int64))

    def measure(self, video: PanopticVideo, warnings: Counter[str]) -> STQCounts:
        overlaps = video.overlaps
        assert video.prediction is not None  # or the overlaps had raised
        truth_class, truth_instance = self._labels(
            video.truth, f"video {video.video_id}, ground truth", overlaps.frame, overlaps.truth_id, warnings
        )
        predicted_class, predicted_instance = self._labels(
            video.prediction, f"video {video.video_id}, prediction", overlaps.frame, overlaps.predicted_id, warnings
        )
        pixels = overlaps.pixels
        intersection, union = self._class_overlap(truth_class, predicted_class, pixels)

        truth_thing = np.isin(truth_class, self.things)
        crowd = truth_thing & (truth_instance == 0)
        truth_thing &= ~crowd
        predicted_thing = np.isin(predicted_class, self.things) & ~crowd
        # A tube is a class and an instance number, in one integer.
        truth_tube = (truth_class << 32) | truth_instance
        predicted_tube = (predicted_class << 32) | predicted_instance
        association, tubes = _association(truth_tube, predicted_tube, truth_thing, predicted_thing, pixels)
        return STQCounts(intersection, union, association, tubes, len(video.truth))

    def summarise(self, records: Sequence[STQCounts]) -> dict[str, float]:
        association = sum(r.association for r in records) / max(sum(r.tubes for r in records), 1)
        zero = np.zeros(self.num_classes + 1, np.int64)
        intersection = sum((r.intersection for r in records), zero)
        union = sum((r.union for r in records), zero)
        present = union > 0
        iou = float((intersection[present] / union[present]).mean()) if present.any() else float("nan")
        return {
            self.name: float(np.sqrt(association * iou)),
            f"{self.name}-AQ": float(association),
            f"{self.name}-IoU": iou,
        }

    def _labels(
        self, sequence: PanopticSequence, where: str, frame: np.ndarray, ids: np.ndarray, warnings: Counter[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Class (num_classes = ignore) and instance number of each entry (frame, id): int64 [n] each."""
        table = SegmentTable.from_sequence(sequence, where, "replace")
        category = self._classes(table, where)
        column, known = table.columns(ids)
        listed = np.zeros(len(ids), bool)
        listed[known] = table.listed[frame[known], column[known]]
        warnings["ids in a map that the JSON does not list, ignored by STQ"] += int((~listed & (ids != 0)).sum())
        # Instances are numbered in the order of their first entry in the video.
        first = np.where(table.listed.any(0), table.listed.argmax(0), len(sequence))  # [N] first listing frame
        number = np.empty(len(table.ids), np.int64)
        number[np.lexsort((table.position[first, np.arange(len(table.ids))], first))] = np.arange(len(table.ids))
        labels, instances = np.full(len(ids), self.num_classes, np.int64), np.zeros(len(ids), np.int64)
        labels[listed] = category[frame[listed], column[listed]]
        instances[listed] = number[column[listed]]
        return labels, instances

    def _classes(self, table: SegmentTable, where: str) -> np.ndarray:
        """Class of each listed segment on each frame, int64 [T, N]."""
        category = np.where(table.category == IGNORE_LABEL, self.num_classes, table.category)
        for t, n in np.argwhere(table.listed & ((category < 0) | (category > self.num_classes)))[:1]:
            raise EvaluationError(
                f"{where}, frame {t}: id {table.ids[n]} has category {category[t, n]}, expected 0..{self.num_classes - 1}"
            )
        return category

    def _class_overlap(self, truth: np.ndarray, predicted: np.ndarray, pixels: np.ndarray) -> tuple[Any, Any]:
        """Intersection and union [C + 1] of each class on the labelled pixels."""
        labelled, size = truth < self.num_classes, self.num_classes + 1
        truth, predicted, pixels = truth[labelled], predicted[labelled], pixels[labelled]
        rows, columns, both = (
            np.bincount(classes, weights=weights, minlength=size).astype(np.int64)
            for classes, weights in ((truth, pixels), (predicted, pixels), (truth, pixels * (truth == predicted)))
        )
        return both, rows + columns - both


def _association(
    truth: np.ndarray, predicted: np.ndarray, truth_thing: np.ndarray, predicted_thing: np.ndarray, pixels: np.ndarray
) -> tuple[float, int]:
    """Sum over annotated tubes g of (1/|g|) sum over p of TPA^2 / (|p| + |g| - TPA), and the number of tubes."""
    truth_tubes, truth_of = np.unique(truth[truth_thing], return_inverse=True)
    predicted_tubes, predicted_of = np.unique(predicted[predicted_thing], return_inverse=True)
    truth_size = np.bincount(truth_of, weights=pixels[truth_thing], minlength=len(truth_tubes))  # [G] |g|
    predicted_size = np.bincount(predicted_of, weights=pixels[predicted_thing], minlength=len(predicted_tubes))
    both = truth_thing & predicted_thing
    g, p = np.searchsorted(truth_tubes, truth[both]), np.searchsorted(predicted_tubes, predicted[both])
    # The pair (g, p) as one integer: entries of all frames are summed per pair of tubes.
    pairs, pair_of = np.unique(g * max(len(predicted_tubes), 1) + p, return_inverse=True)
    shared = np.bincount(pair_of, weights=pixels[both], minlength=len(pairs))  # [pairs] TPA
    g, p = np.divmod(pairs, max(len(predicted_tubes), 1))
    terms = shared * (shared / (predicted_size[p] + truth_size[g] - shared)) / truth_size[g]
    return float(terms.sum()), len(truth_tubes)


@EVALUATORS.register("stq")
class STQ(TrackingQuality):
    """STQ, STQ-AQ and STQ-IoU over the categories of the data set (VIPSeg: 124).

    Args:
        categories: mappings with `id` and `isthing`, from the ground-truth file.
        num_classes: category ids are in 0..num_classes-1.
    """

    def __init__(self, categories: Sequence[Mapping[str, Any]], num_classes: int = 124) -> None:
        super().__init__("STQ", num_classes, [int(c["id"]) for c in categories if c.get("isthing", 1)])


@EVALUATORS.register("stq_en")
class EntitySTQ(TrackingQuality):
    """STQ^EN, its AQ and IoU: every listed segment, including stuff, is a tracked entity of class 1 (classes 0 and 1)."""

    def __init__(self) -> None:
        super().__init__("STQ^EN", num_classes=2, things=[1])

    def _classes(self, table: SegmentTable, where: str) -> np.ndarray:
        return np.ones_like(table.category)
