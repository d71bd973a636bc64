"""TETA (Li et al., Tracking Every Thing in the Wild, ECCV 2022): separate localisation, association, classification.

Predictions are grouped by position, not by predicted class: the boxes that count for a class are those of the tracks
that overlap its annotations ("local clusters").
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from entitysam.evaluation.counts import Counts, total
from entitysam.evaluation.evaluator import Evaluator
from entitysam.evaluation.hota import association_sums
from entitysam.evaluation.tracks import EPSILON, Alignment, FramePairs, Similarity, TrackedVideo, Tracks, align
from entitysam.registry import EVALUATORS

logger = logging.getLogger(__name__)

ALPHAS = np.arange(0.0, 0.99, 0.05)
FROM_HALF = ALPHAS >= 0.5 - EPSILON  # thresholds at which classification is evaluated
CLUSTER_IOU = 0.5
ASSOCIATION = ("association", "association_recall", "association_precision")
ZERO: Counts = {
    **{name: np.zeros(len(ALPHAS)) for name in ("loc_tp", "loc_fn", "loc_fp", *ASSOCIATION)},
    **{name: np.zeros(int(FROM_HALF.sum())) for name in ("cls_tp", "cls_fn", "cls_fp")},
    "annotated": np.zeros(()),
    "claimed": np.zeros(()),
}


class VideoTETA:
    """Counts of one video, class by class.

    Args:
        truth, prediction: tracks on the evaluated frames.
        video_id: for error messages.
        exhaustive: all objects are annotated, so that every prediction of an annotated class that overlaps none of its
            annotations is a wrong classification. False for TAO, where only some objects are annotated.
        similarity: of boxes, see `align`.
    """

    def __init__(
        self, truth: Tracks, prediction: Tracks, video_id: Any, exhaustive: bool, similarity: Similarity | None = None
    ) -> None:
        self.truth, self.prediction, self.video_id = truth, prediction, video_id
        self.exhaustive, self.similarity = exhaustive, similarity
        self.alignment = align(truth, prediction, video_id, similarity)
        self.assigned = self._assign_across_classes()

    def count(self, categories: Sequence[int]) -> dict[int, Counts]:
        """Counts of each category.

        The order of the categories matters: for a category without clusters the wrong classifications counted by
        earlier categories are overwritten, as in the published evaluator.
        """
        counts = {category: total((), ZERO) for category in categories}
        for category in categories:
            self._count_class(category, counts)
        return counts

    def _assign_across_classes(self) -> list[dict[int, int]]:
        """Per frame: row of a predicted box -> category of the annotation to which it is assigned at IoU 0.5."""
        meets = [np.any(pairs.similarity >= CLUSTER_IOU, axis=0) for pairs in self.alignment.frames]
        inside = self.alignment.restrict(np.ones(len(self.truth), bool), self._whole_tracks(meets))
        assigned = []
        for pairs in inside.frames:
            rows, columns = inside.assign(pairs)
            kept = pairs.similarity[rows, columns] >= CLUSTER_IOU - EPSILON
            categories = self.truth.category[pairs.truth_rows[rows[kept]]]
            assigned.append(dict(zip(pairs.predicted_rows[columns[kept]].tolist(), categories.tolist())))
        return assigned

    def _whole_tracks(self, chosen: Sequence[np.ndarray]) -> np.ndarray:
        """bool over all predicted boxes: the track is chosen on some frame; `chosen` is bool [m] per frame."""
        rows = [pairs.predicted_rows[choice] for pairs, choice in zip(self.alignment.frames, chosen)]
        ids = self.prediction.track_id[np.concatenate(rows)] if rows else np.zeros(0, np.int64)
        return np.isin(self.prediction.track_id, ids)

    def _clusters(self, category: int) -> list[np.ndarray]:
        """Per frame bool [m]: the predicted box overlaps an annotation of the class and is assigned to no other class."""
        clusters = []
        for pairs, assigned in zip(self.alignment.frames, self.assigned):
            of_class = self.truth.category[pairs.truth_rows] == category
            meets = (pairs.similarity[of_class] >= CLUSTER_IOU).any(0)
            others = [assigned.get(int(row), category) != category for row in pairs.predicted_rows]
            clusters.append(meets & ~np.array(others, bool))
        return clusters

    def _count_class(self, category: int, counts: dict[int, Counts]) -> None:
        own, clusters = counts[category], self._clusters(category)
        annotated = self.truth.category == category
        own["annotated"] = annotated.sum()
        own["claimed"] = (self.prediction.category == category).sum()
        in_cluster = self._whole_tracks(clusters)
        claimed = [self.prediction.category[pairs.predicted_rows] == category for pairs in self.alignment.frames]
        stray = [int((claim & ~cluster).sum()) for claim, cluster in zip(claimed, clusters)]
        if not in_cluster.any():
            own["loc_fn"] += annotated.sum()
            if self.exhaustive:
                own["cls_fp"][:] = sum(stray)
            return
        part = self.alignment.restrict(annotated, in_cluster)
        together = np.zeros((len(ALPHAS), len(part.truth_ids), len(part.predicted_ids)))
        for index, pairs in enumerate(part.frames):
            if self.exhaustive:
                own["cls_fp"] += stray[index]
            if len(pairs.truth):
                cluster_rows = self.alignment.frames[index].predicted_rows[clusters[index]]
                self._count_frame(category, part, pairs, cluster_rows, together, counts)
        own.update(association_sums(together, part.truth_boxes, part.predicted_boxes))

    def _count_frame(
        self,
        category: int,
        part: Alignment,
        pairs: FramePairs,
        cluster_rows: np.ndarray,
        together: np.ndarray,
        counts: dict[int, Counts],
    ) -> None:
        own = counts[category]
        rows, columns = part.assign(pairs)
        matched = pairs.similarity[rows, columns] >= ALPHAS[:, None] - EPSILON
        in_cluster = np.isin(pairs.predicted_rows[columns], cluster_rows)
        own["loc_tp"] += matched.sum(1)
        own["loc_fn"] += len(pairs.truth) - matched.sum(1)
        own["loc_fp"] += len(cluster_rows) - (matched & in_cluster).sum(1)
        together[:, pairs.truth[rows], pairs.predicted[columns]] += matched
        claimed = self.prediction.category[pairs.predicted_rows[columns]]
        judged = matched[FROM_HALF]
        own["cls_tp"] += (judged & (claimed == category)).sum(1)
        own["cls_fn"] += (judged & (claimed != category)).sum(1)
        for wrong in set(claimed.tolist()) & counts.keys() - {category}:
            counts[wrong]["cls_fp"] += (judged & (claimed == wrong)).sum(1)


def numbers(counts: Counts) -> dict[str, np.ndarray]:
    """TETA and its parts, percent: per threshold [20], classification as one number."""
    tp, fn, fp = counts["loc_tp"], counts["loc_fn"], counts["loc_fp"]
    matched = np.maximum(tp, 1)
    right, missed, wrong = counts["cls_tp"], counts["cls_fn"], counts["cls_fp"]
    result = {
        "LocA": tp / np.maximum(tp + fn + fp, 1),
        "LocRe": tp / np.maximum(tp + fn, 1),
        "LocPr": tp / np.maximum(tp + fp, 1),
        "AssocA": counts["association"] / matched,
        "AssocRe": counts["association_recall"] / matched,
        "AssocPr": counts["association_precision"] / matched,
        "ClsA": np.mean(right / np.maximum(right + missed + wrong, 1)),
        "ClsRe": np.mean(right / np.maximum(right + missed, 1)),
        "ClsPr": np.mean(right / np.maximum(right + wrong, 1)),
    }
    result["TETA"] = (result["LocA"] + result["AssocA"] + result["ClsA"]) / 3
    return {name: 100 * np.asarray(value) for name, value in result.items()}


@EVALUATORS.register("teta")
class TETA(Evaluator[TrackedVideo, dict[int, Counts]]):
    """TETA, LocA, AssocA, ClsA and their recalls and precisions, percent; the mean over classes with counts.

    Frames without annotations and annotations with `ignore` are skipped. NaN if no category is annotated, and in
    exhaustive mode if there is no prediction (the published evaluator stops there).

    Args:
        categories: mappings with `id`, in the order of the annotation file (which matters in exhaustive mode).
        exhaustive: False for TAO's protocol, True where every object is annotated.
        majority_vote: first assign its most frequent category to all boxes of a predicted track, as MASA does.
    """

    scale = 1.0

    def __init__(
        self, categories: Sequence[Mapping[str, Any]], exhaustive: bool = False, majority_vote: bool = False
    ) -> None:
        super().__init__()
        self.category_ids = [int(category["id"]) for category in categories]
        self.exhaustive, self.majority_vote = exhaustive, majority_vote

    def measure(self, video: TrackedVideo, warnings: Counter[str]) -> dict[int, Counts]:
        truth, prediction = video.truth[~video.truth.ignore], video.prediction
        if self.majority_vote:
            prediction = vote_category(prediction)
        annotated = np.isin(prediction.frame, truth.frame)
        warnings["predicted boxes on frames without annotations, left out of TETA"] += int((~annotated).sum())
        return VideoTETA(truth, prediction[annotated], video.video_id, self.exhaustive).count(self.category_ids)

    def compute(self) -> dict[str, float]:
        result = super().compute()
        if self.exhaustive and not any(row["claimed"] for record in self.records.values() for row in record.values()):
            logger.warning("TETA: no prediction in any of %d videos, undefined", len(self.records))
            return dict.fromkeys(result, float("nan"))
        return result

    def summarise(self, records: Sequence[dict[int, Counts]]) -> dict[str, float]:
        rows = [numbers(counts) for counts in self.per_category(records).values() if counted(counts)]
        names = numbers(total((), ZERO))
        return {n: float(np.mean([np.mean(row[n]) for row in rows])) if rows else float("nan") for n in names}

    def per_category(self, records: Sequence[dict[int, Counts]]) -> dict[int, Counts]:
        """Counts of the annotated categories."""
        counts = {c: total((record[c] for record in records), ZERO) for c in self.category_ids}
        return {category: row for category, row in counts.items() if row["annotated"] > 0}


def counted(counts: Counts) -> bool:
    """Whether the class has any true positive, miss or false positive of localisation."""
    return bool((counts["loc_tp"] + counts["loc_fn"] + counts["loc_fp"]).any())


def vote_category(tracks: Tracks) -> Tracks:
    """Assigns its most frequent category to all boxes of a track; ties go to the smallest id."""
    category = tracks.category.copy()
    for track_id in np.unique(tracks.track_id):
        boxes = tracks.track_id == track_id
        values, votes = np.unique(tracks.category[boxes], return_counts=True)
        category[boxes] = values[votes.argmax()]
    return replace(tracks, category=category)
