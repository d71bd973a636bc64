"""BDD100K multi-object tracking as MASA evaluates it: motmetrics, HOTA and TETA, each with its own box convention."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from entitysam.evaluation import bdd_mot, hota, teta
from entitysam.evaluation.counts import Counts, total
from entitysam.evaluation.evaluator import Evaluator
from entitysam.evaluation.tracks import TrackedVideo, Tracks, align, box_intersection, box_iou
from entitysam.registry import EVALUATORS

CLASSES = ("pedestrian", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
TETA_ORDER = ("pedestrian", "rider", "car", "bus", "truck", "train", "motorcycle", "bicycle")
DISTRACTORS = {"other person": "pedestrian", "other vehicle": "car", "trailer": "truck"}
SUPER_CLASSES = {
    "human": ("pedestrian", "rider"),
    "vehicle": ("car", "truck", "bus", "train"),
    "bike": ("motorcycle", "bicycle"),
}
GROUPS = {name: (name,) for name in CLASSES} | SUPER_CLASSES | {"OVERALL": CLASSES}
SUMMED = ("FP", "FN", "IDSw", "MT", "PT", "ML", "FM", "Dets", "IDs")  # counts; their AVERAGE is the sum


def _hota_numbers(counts: Counts) -> dict[str, np.ndarray]:
    percent = {name: 100 * value for name, value in hota.numbers(counts).items()}
    return percent | {"Dets": counts["Dets"], "IDs": counts["IDs"]}


PROGRAMS: dict[str, tuple[Counts, Callable[[Counts], Mapping[str, np.ndarray]]]] = {
    "mot": (bdd_mot.zero_counts(), bdd_mot.numbers),
    "hota": (hota.zero_counts() | {"Dets": np.zeros(()), "IDs": np.zeros(())}, _hota_numbers),
    "teta": (teta.ZERO, teta.numbers),
}
HEADLINES = {
    "mot": ("IDF1", "MOTA", "MOTP"),
    "hota": ("HOTA", "DetA", "AssA"),
    "teta": ("TETA", "LocA", "AssocA", "ClsA"),
}
Record = dict[str, dict[str, Counts]]


@EVALUATORS.register("bdd_tracking")
class BDDTracking(Evaluator[TrackedVideo, Record]):
    """mIDF1, mMOTA, mHOTA, mTETA and their parts (class means) and IDF1, MOTA, ... (pooled). Percent.

    Annotations with `ignore` are crowd regions: unmatched predictions inside them do not count. "other person",
    "other vehicle" and "trailer" are ignore regions for mIDF1 and mMOTA, and boxes of the similar class for the other
    metrics, as in the published pipeline.

    Args:
        categories: mappings with `id` and `name`; names other than the eight classes and the three distractors are
            ignored.
    """

    scale = 1.0

    def __init__(self, categories: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        self.name_of = {int(category["id"]): str(category.get("name", "")) for category in categories}

    def measure(self, video: TrackedVideo, warnings: Counter[str]) -> Record:
        truth, prediction = (self._by_class(side) for side in (video.truth, video.prediction))
        warnings["boxes of classes that BDD100K does not track, left out"] += sum(
            int((side.category < 0).sum()) for side in (truth, prediction)
        )
        truth, prediction = truth[truth.category >= 0], prediction[prediction.category >= 0]
        return {
            "mot": _count_mot(truth, prediction, video.video_id),
            "hota": _count_hota(_renamed(truth), _renamed(prediction), video.video_id),
            "teta": _count_teta(_renamed(truth), _renamed(prediction), video.video_id),
        }

    def summarise(self, records: Sequence[Record]) -> dict[str, float]:
        result = {}
        for program, metrics in HEADLINES.items():
            rows = self.table(records, program)
            for metric in metrics:
                result[f"m{metric}"] = rows[metric]["AVERAGE"]
                result[metric] = rows[metric]["OVERALL"]
        return result

    def table(self, records: Sequence[Record], program: str) -> dict[str, dict[str, float]]:
        """Metric -> {class, super-class, OVERALL (pooled), AVERAGE (over classes)} of "mot", "hota" or "teta"."""
        zero, numbers = PROGRAMS[program]
        of_class = {c: total((record[program][c] for record in records), zero) for c in CLASSES}
        pooled = {name: total((of_class[c] for c in members), zero) for name, members in GROUPS.items()}
        rows: dict[str, dict[str, float]] = {}
        for name, counts in pooled.items():
            for metric, value in numbers(counts).items():
                rows.setdefault(metric, {})[name] = float(np.mean(value))
        averaged = [c for c in CLASSES if program != "teta" or teta.counted(of_class[c])]
        for metric, row in rows.items():
            values = np.array([row[c] for c in averaged])
            # Undefined values of a class count 0.
            mean = float(np.where(np.isfinite(values), values, 0).mean()) if len(values) else float("nan")
            row["AVERAGE"] = row["OVERALL"] if metric in SUMMED else mean
        return rows

    def _by_class(self, tracks: Tracks) -> Tracks:
        """Category ids -> index in CLASSES, then DISTRACTORS; -1 for other names."""
        index = {name: n for n, name in enumerate((*CLASSES, *DISTRACTORS))}
        category = [index.get(self.name_of.get(int(c), ""), -1) for c in tracks.category]
        return replace(tracks, category=np.array(category, np.int64))


def _renamed(tracks: Tracks) -> Tracks:
    """Distractors become boxes of the similar class."""
    target = np.array([*range(len(CLASSES)), *(CLASSES.index(name) for name in DISTRACTORS.values())])
    return replace(tracks, category=target[tracks.category])


def _grown(tracks: Tracks) -> Tracks:
    """Boxes whose corners are inclusive: width and height plus one pixel."""
    return replace(tracks, box=tracks.box + [0, 0, 1, 1])


def _count_mot(truth: Tracks, prediction: Tracks, video_id: Any) -> dict[str, Counts]:
    truth, prediction = _grown(truth), _grown(prediction)
    regions = truth[truth.ignore | (truth.category >= len(CLASSES))]
    counts = {}
    for index, name in enumerate(CLASSES):
        own = truth[(truth.category == index) & ~truth.ignore]
        predicted = outside_regions(own, prediction[prediction.category == index], regions)
        counts[name] = bdd_mot.count(align(own, predicted, video_id, unique=False))
    return counts


def _count_hota(truth: Tracks, prediction: Tracks, video_id: Any) -> dict[str, Counts]:
    counts = {}
    for index, name in enumerate(CLASSES):
        own = truth[(truth.category == index) & ~truth.ignore]
        predicted = outside_regions(own, prediction[prediction.category == index], truth[truth.ignore])
        alignment = align(own, predicted, video_id)
        boxes = {"Dets": np.array(len(predicted)), "IDs": np.array(len(alignment.predicted_ids))}
        counts[name] = hota.count(alignment) | boxes
    return counts


def _count_teta(truth: Tracks, prediction: Tracks, video_id: Any) -> dict[str, Counts]:
    truth, prediction = _grown(truth), _grown(prediction)
    own = truth[~truth.ignore]
    predicted = outside_regions(own, prediction, truth[truth.ignore])
    order = [CLASSES.index(name) for name in TETA_ORDER]
    counts = teta.VideoTETA(own, predicted, video_id, exhaustive=True).count(order)
    return {CLASSES[index]: row for index, row in counts.items()}


def outside_regions(truth: Tracks, prediction: Tracks, regions: Tracks) -> Tracks:
    """Removes predictions that match no annotation at IoU 0.5 and lie more than half inside one region."""
    keep = np.ones(len(prediction), bool)
    for frame in np.unique(regions.frame):
        rows = np.flatnonzero(prediction.frame == frame)
        boxes = prediction.box[rows]
        iou = box_iou(truth.box[truth.frame == frame], boxes)
        g, p = linear_sum_assignment(-np.where(iou >= 0.5, iou, 0))
        unmatched = np.ones(len(rows), bool)
        unmatched[p[iou[g, p] >= 0.5]] = False
        areas = np.maximum(boxes[:, 2] * boxes[:, 3], np.finfo(float).tiny)
        inside = box_intersection(boxes, regions.box[regions.frame == frame]) / areas[:, None] > 0.5
        keep[rows] = ~(unmatched & inside.any(1))
    return prediction[keep]
