"""COCO average precision for any IoU: greedy matching by score, and precision over recall (Lin et al., ECCV 2014).

Follows the COCO evaluator exactly: stable order by score, caps per group, inclusive area ranges, ignored annotations,
10 IoU thresholds, 101 recall points. All ranges (of area, of occlusion) are matched in one pass. Shapes: D detections,
G annotations, R ranges, I IoU thresholds.
"""

import logging
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from entitysam.evaluation.evaluator import Evaluator
from entitysam.evaluation.videos import Instance, InstanceVideo

logger = logging.getLogger(__name__)

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_POINTS = np.linspace(0, 1, 101)
CAPS = (1, 10, 100)
ALL_AREAS = (0.0, 1e10)


@dataclass(frozen=True)
class Matches:
    """Detections of one group (a video's or image's instances of a category), best score first.

    Attributes:
        scores: float64 [D].
        matched: bool [R, I, D], the detection matches an annotation.
        ignored: bool [R, I, D], the detection counts neither as true nor as false positive.
        positives: int64 [R], number of annotations that are not ignored.
    """

    scores: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray
    positives: np.ndarray


def match(
    iou: np.ndarray,
    scores: np.ndarray,
    outside: np.ndarray,
    ignore: np.ndarray,
    crowd: np.ndarray,
    findable: np.ndarray,
) -> Matches:
    """Matches detections to annotations greedily, each to the best annotation that is still free.

    Args:
        iou: float64 [D, G], detections in descending order of score.
        scores: float64 [D].
        outside: bool [R, D], the detection is ignored if it has no match.
        ignore: bool [R, G], the annotation is ignored; detections prefer annotations that are not.
        crowd: bool [G], can be matched several times.
        findable: bool [G]; a match with False does not count (annotation id 0 in the reference formats).
    """
    detections, annotations = iou.shape
    shape = (len(ignore), len(IOU_THRESHOLDS), detections)
    matched, ignored = np.zeros(shape, bool), np.zeros(shape, bool)
    taken = np.zeros((*shape[:2], annotations), bool)  # [R, I, G]
    thresholds = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)[:, None]
    ranges, levels = np.ogrid[: shape[0], : shape[1]]
    for d in range(detections if annotations else 0):
        eligible = (~taken | crowd) & (iou[d] >= thresholds)  # [R, I, G]
        wanted = eligible & ~ignore[:, None]
        pool = np.where(wanted.any(-1, keepdims=True), wanted, eligible)
        # Ties in IoU go to the last annotation, so the search starts at the end.
        best = annotations - 1 - np.where(pool, iou[d], -1)[..., ::-1].argmax(-1)
        found = pool.any(-1)
        taken[ranges, levels, best] |= found
        matched[..., d] = found & findable[best]
        ignored[..., d] = found & ignore[ranges, best]
    ignored |= ~matched & outside[:, None]
    return Matches(scores, matched, ignored, (~ignore).sum(1))


def precision_and_recall(groups: Sequence[Matches], range_index: int, cap: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Precision [I, 101] at the recall points and final recall [I] over all groups of a category.

    Args:
        groups: in the order of the videos, which breaks ties between equal scores.
        range_index: index of the range.
        cap: maximum number of detections per group.

    Returns:
        None if there are no positives.
    """
    positives = sum(int(group.positives[range_index]) for group in groups)
    if not positives:
        return None
    scores = np.concatenate([group.scores[:cap] for group in groups])
    order = np.argsort(-scores, kind="stable")
    matched = np.concatenate([group.matched[range_index, :, :cap] for group in groups], axis=1)[:, order]
    ignored = np.concatenate([group.ignored[range_index, :, :cap] for group in groups], axis=1)[:, order]
    precision = np.zeros((len(IOU_THRESHOLDS), len(RECALL_POINTS)))
    if not len(scores):
        return precision, np.zeros(len(IOU_THRESHOLDS))
    right = np.cumsum(matched & ~ignored, axis=1)  # [I, D] true positives among the first detections
    wrong = np.cumsum(~matched & ~ignored, axis=1)
    recall = right / positives  # [I, D]
    at_detection = right / (right + wrong + np.spacing(1))
    envelope = np.maximum.accumulate(at_detection[:, ::-1], axis=1)[:, ::-1]  # monotone from the right
    for level in range(len(IOU_THRESHOLDS)):
        index = np.searchsorted(recall[level], RECALL_POINTS)  # [101] first detection with that recall
        reached = index < len(scores)
        precision[level, reached] = envelope[level, index[reached]]
    return precision, recall[:, -1]


class AveragePrecision(Evaluator[InstanceVideo, dict[int, Matches]]):
    """AP, AP50, AP75, AR1, AR10, AR100 and both by range, averaged over categories. Fractions, NaN where undefined.

    Without any detection all metrics are NaN (the reference evaluators stop), and a warning is logged.

    Args:
        mark: suffix of "AP" and "AR" in the metric names, e.g. "^e".
        ranges: names of the ranges, "" (no restriction) first.
    """

    def __init__(self, mark: str, ranges: Sequence[str]) -> None:
        super().__init__()
        self.mark = mark
        self.ranges = tuple(ranges)

    @abstractmethod
    def measure(self, video: InstanceVideo, warnings: Counter[str]) -> dict[int, Matches]:
        """Matches per category; class-agnostic metrics use one key for all."""

    def compute(self) -> dict[str, float]:
        result = super().compute()
        if any(len(group.scores) for record in self.records.values() for group in record.values()):
            return result
        logger.warning("AP%s: no detection in any of %d videos, undefined", self.mark, len(self.records))
        return dict.fromkeys(result, float("nan"))

    def summarise(self, records: Sequence[Mapping[int, Matches]]) -> dict[str, float]:
        categories = sorted({category for record in records for category in record})
        groups = [[record[category] for record in records if category in record] for category in categories]
        result: dict[str, float] = {}
        for index, name in enumerate(self.ranges):
            precision, recall = self._mean(groups, index, CAPS[-1])
            result[f"AP{self.mark}{name}"] = _mean_or_nan(precision)
            if not name:
                result[f"AP{self.mark}50"] = _mean_or_nan(precision[:, 0])
                result[f"AP{self.mark}75"] = _mean_or_nan(precision[:, 5])
                for cap in CAPS:
                    result[f"AR{self.mark}{cap}"] = _mean_or_nan(self._mean(groups, index, cap)[1])
            else:
                result[f"AR{self.mark}{name}"] = _mean_or_nan(recall)
        return result

    def per_category(self) -> dict[int, np.ndarray]:
        """AP per IoU threshold [I] of each category that has annotations, over all videos."""
        records = [self.records[video_id] for video_id in sorted(self.records)]
        rows = {}
        for category in sorted({category for record in records for category in record}):
            entry = precision_and_recall([r[category] for r in records if category in r], 0, CAPS[-1])
            if entry is not None:
                rows[category] = entry[0].mean(1)
        return rows

    def _mean(self, groups: list[list[Matches]], range_index: int, cap: int) -> tuple[np.ndarray, np.ndarray]:
        """Precision [K, I, 101] and recall [K, I] of the categories with annotations in the range."""
        entries = [precision_and_recall(group, range_index, cap) for group in groups]
        defined = [entry for entry in entries if entry is not None]
        levels = len(IOU_THRESHOLDS)
        precision = np.array([entry[0] for entry in defined]).reshape(-1, levels, len(RECALL_POINTS))
        return precision, np.array([entry[1] for entry in defined]).reshape(-1, levels)


def best_detections(detections: Sequence[Instance]) -> list[Instance]:
    """Detections by descending score, ties in file order, limited to the largest cap."""
    order = np.argsort([-detection.score for detection in detections], kind="stable")
    return [detections[index] for index in order[: CAPS[-1]]]


def outside_of(values: np.ndarray, ranges: Sequence[tuple[float, float]]) -> np.ndarray:
    """bool [R, n]: the value lies outside the range; both limits belong to the range."""
    low, high = np.array(ranges, float).reshape(-1, 2).T[..., None]
    return (values < low) | (values > high)


def count_odd_scores(video: InstanceVideo, warnings: Counter[str]) -> None:
    """Counts NaN scores; they are sorted last, as in the reference evaluators."""
    warnings["detections whose score is NaN"] += sum(bool(np.isnan(d.score)) for d in video.prediction)


def _mean_or_nan(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")


def rle_intersections(detections: Sequence[Any], annotations: Sequence[Any]) -> np.ndarray:
    """Intersections of masks in pixels, float64 [D, G] of integers; -1 if the masks differ in size.

    Args:
        detections, annotations: compressed COCO RLEs.
    """
    # For crowds pycocotools returns intersection / area of the detection; rounding restores the exact count.
    share = coco_mask.iou(list(detections), list(annotations), [1] * len(annotations))
    areas = coco_mask.area(list(detections)).astype(float)[:, None]
    return np.where(share < 0, -1, np.rint(share * areas))
