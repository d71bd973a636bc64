"""Matching of tubes (segments over k consecutive frames) by IoU > 0.5, for all clips of a video at once."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from entitysam.evaluation.evaluator import EvaluationError
from entitysam.evaluation.segments import SegmentTable, counted_areas
from entitysam.evaluation.videos import PanopticVideo


@dataclass(frozen=True)
class VideoTubes:
    """The segments of one video, to be matched at any window length. G and P are the numbers of listed segments.

    Attributes:
        video_id: for error messages.
        truth, predicted: the listed segments; `predicted.area` is counted in the maps, `category` is an index 0..C-1.
        pair_truth, pair_predicted: int64 [n] columns of the pairs of listed segments that overlap on some frame.
        pair_pixels: int64 [T, n] pixels of each pair on each frame.
        void_pixels: int64 [T, P] pixels of each predicted segment on void.
        warnings: counts defects of the input.
        sum_crowds: all crowd segments excuse a prediction (VEQ), not only the last one of its category (VPQ).
        strict: an IoU above 1 raises (video metrics) instead of being counted (PQ of images).
    """

    video_id: Any
    truth: SegmentTable
    predicted: SegmentTable
    pair_truth: np.ndarray
    pair_predicted: np.ndarray
    pair_pixels: np.ndarray
    void_pixels: np.ndarray
    warnings: Counter[str]
    sum_crowds: bool = False
    strict: bool = True

    @classmethod
    def of_video(
        cls,
        video: PanopticVideo,
        warnings: Counter[str],
        repeated: Literal["add", "replace"] = "add",
        check_listed_area: bool = False,
    ) -> "VideoTubes":
        """Checks a video and builds its tables; categories are still those of the files.

        Args:
            video: the video, or an image as a video of one frame.
            warnings: counts defects of the input.
            repeated: rule for an id that is listed twice on a frame, see `SegmentTable`.
            check_listed_area: require that the predicted areas in the JSON equal the counted ones.

        Raises:
            EvaluationError: not predicted, other frames or sizes, or map and JSON of the prediction disagree.
        """
        overlaps = video.overlaps
        assert video.prediction is not None  # otherwise `overlaps` raises
        truth_name, predicted_name = (f"video {video.video_id}, {side}" for side in ("ground truth", "prediction"))
        truth = SegmentTable.from_sequence(video.truth, truth_name, repeated, required=("area", "iscrowd"))
        predicted = SegmentTable.from_sequence(video.prediction, predicted_name, repeated)
        area = counted_areas(predicted, overlaps, predicted_name, check_listed_area)
        wrong = predicted.listed & (predicted.area >= 0) & (predicted.area != area)
        warnings["predicted areas in the JSON that differ from the map, replaced"] += int(wrong.sum())
        unlisted = ~truth.columns(overlaps.truth_id)[1] & (overlaps.truth_id != 0)
        warnings["annotated ids in a map that the JSON does not list"] += len(np.unique(overlaps.truth_id[unlisted]))
        absent = truth.listed & (truth.pixels(overlaps.frame, overlaps.truth_id, overlaps.pixels) == 0)
        warnings["annotated segments in the JSON without pixels"] += int(absent.sum())

        void = overlaps.truth_id == 0
        void_pixels = predicted.pixels(overlaps.frame[void], overlaps.predicted_id[void], overlaps.pixels[void])
        (g, g_known), (p, p_known) = truth.columns(overlaps.truth_id), predicted.columns(overlaps.predicted_id)
        both = g_known & p_known
        # A pair of columns as one integer: [n] distinct pairs, and the pair of each overlap.
        pairs, pair = np.unique(g[both] * max(len(predicted.ids), 1) + p[both], return_inverse=True)
        pair_pixels = np.zeros((len(video.truth), len(pairs)), np.int64)
        pair_pixels[overlaps.frame[both], pair] = overlaps.pixels[both]
        pair_truth, pair_predicted = np.divmod(pairs, max(len(predicted.ids), 1))
        predicted = replace(predicted, area=area)
        return cls(video.video_id, truth, predicted, pair_truth, pair_predicted, pair_pixels, void_pixels, warnings)

    @property
    def frames(self) -> int:
        return len(self.pair_pixels)

    def class_agnostic(self) -> "VideoTubes":
        """All segments in one category."""
        tables = (replace(side, category=np.zeros_like(side.category)) for side in (self.truth, self.predicted))
        truth, predicted = tables
        return replace(self, truth=truth, predicted=predicted, sum_crowds=True)

    def with_categories(self, category_ids: np.ndarray) -> "VideoTubes":
        """Category ids -> their index in `category_ids` [C] (ascending); C where unknown."""

        def indexed(side: SegmentTable) -> SegmentTable:
            index = np.searchsorted(category_ids, side.category).clip(max=len(category_ids) - 1)
            known = category_ids[index] == side.category
            return replace(side, category=np.where(known, index, len(category_ids)))

        return replace(self, truth=indexed(self.truth), predicted=indexed(self.predicted))

    def match(self, window: int, categories: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Sum of IoU, TP, FP and FN of all clips of `window` frames, per category: [C] each.

        Raises:
            EvaluationError: an IoU above 1, which only wrong areas in the JSON of the ground truth cause.
        """
        if self.frames < window:
            none = np.zeros(categories, np.int64)
            return none.astype(float), none, none, none
        truth, predicted = ClipSegments.of(self.truth, window), ClipSegments.of(self.predicted, window)
        g, p = self.pair_truth, self.pair_predicted
        pixels = window_sums(self.pair_pixels, window)  # [clips, n]
        void = window_sums(self.void_pixels, window)  # [clips, P]
        # Tables [clips, G] and [clips, P] are indexed by the pairs: everything below is [clips, n].
        may_match = (pixels > 0) & (truth.present & ~truth.crowd)[:, g] & predicted.present[:, p]
        may_match &= truth.category[:, g] == predicted.category[:, p]
        union = predicted.area[:, p] + truth.area[:, g] - pixels - void[:, p]  # void pixels do not count
        self._check_iou(may_match & (union >= 0) & (pixels > union), window)
        iou = np.divide(pixels, union, out=np.zeros(pixels.shape), where=may_match & (union > 0))
        clip, pair = np.nonzero(iou > 0.5)

        truth_matched, predicted_matched = np.zeros_like(truth.present), np.zeros_like(predicted.present)
        truth_matched[clip, g[pair]] = True
        predicted_matched[clip, p[pair]] = True
        excused = void + self._on_crowd(truth, predicted, pixels)
        wrong = predicted.present & ~predicted_matched & (2 * excused <= predicted.area)
        missed = truth.present & ~truth.crowd & ~truth_matched
        matched_category = truth.category[clip, g[pair]]
        return (
            np.bincount(matched_category, weights=iou[clip, pair], minlength=categories),
            np.bincount(matched_category, minlength=categories),
            np.bincount(predicted.category[wrong], minlength=categories),
            np.bincount(truth.category[missed], minlength=categories),
        )

    def _on_crowd(self, truth: "ClipSegments", predicted: "ClipSegments", pixels: np.ndarray) -> np.ndarray:
        """Pixels [clips, P] of predicted tubes on crowd tubes, which excuse a false positive."""
        on_crowd = np.zeros(predicted.present.shape, np.int64)
        crowd = truth.present & truth.crowd
        if not crowd.any():
            return on_crowd
        if not self.sum_crowds:
            crowd &= ~_has_later_twin(crowd, truth.category, truth.order)
        g, p = self.pair_truth, self.pair_predicted
        counts = crowd[:, g] & (truth.category[:, g] == predicted.category[:, p])
        np.add.at(on_crowd.T, p, np.where(counts, pixels, 0).T)
        return on_crowd

    def _check_iou(self, above_one: np.ndarray, window: int) -> None:
        if not self.strict:
            self.warnings["pairs with IoU above 1, from wrong annotated areas"] += int(above_one.sum())
            return
        for clip, pair in np.argwhere(above_one)[:1]:
            raise EvaluationError(
                f"video {self.video_id}, frames {clip}..{clip + window - 1}: IoU above 1 between annotated id "
                f"{self.truth.ids[self.pair_truth[pair]]} and predicted id "
                f"{self.predicted.ids[self.pair_predicted[pair]]}; the annotated areas must be wrong"
            )


@dataclass(frozen=True)
class ClipSegments:
    """Segments of ground truth or prediction in every clip of one length; all [clips, N].

    Attributes:
        present: some frame of the clip lists the segment.
        area: number of pixels in the clip.
        category, crowd, order: those of the first frame of the clip that lists it; `order` sorts by first listing.
    """

    present: np.ndarray
    area: np.ndarray
    category: np.ndarray
    crowd: np.ndarray
    order: np.ndarray

    @classmethod
    def of(cls, table: SegmentTable, window: int) -> "ClipSegments":
        frames, segments = table.listed.shape
        clips = frames - window + 1
        time = np.arange(frames)[:, None]
        # First frame at or after each frame that lists the segment, from the end backwards: [clips, N].
        first = np.minimum.accumulate(np.where(table.listed, time, frames)[::-1])[::-1][:clips]
        at = (np.minimum(first, frames - 1), np.arange(segments)[None])  # index of [T, N] tables -> [clips, N]
        order = first * (table.position.max(initial=0) + 1) + table.position[at]
        present = first < time[:clips] + window
        return cls(present, window_sums(table.area, window), table.category[at], table.crowd[at], order)


def window_sums(values: np.ndarray, window: int) -> np.ndarray:
    """Sums of `window` consecutive rows of [T, n]: [T - window + 1, n]."""
    cumulated = np.concatenate([np.zeros_like(values[:1]), np.cumsum(values, axis=0)])
    return cumulated[window:] - cumulated[:-window]


def _has_later_twin(member: np.ndarray, category: np.ndarray, order: np.ndarray) -> np.ndarray:
    """bool [clips, N]: another member of the same clip and category has a later first entry."""
    columns = np.flatnonzero(member.any(0))
    member_, category_, order_ = member[:, columns], category[:, columns], order[:, columns]
    later = member_[:, None] & (category_[:, None] == category_[:, :, None]) & (order_[:, None] > order_[:, :, None])
    result = np.zeros_like(member)
    result[:, columns] = later.any(-1)
    return result
