"""Video panoptic quality over tubes: VEQ (class-agnostic; EntitySAM, section 4) and VPQ (Kim et al., CVPR 2020).

A clip is a window of k consecutive frames; a tube is the union of a segment's masks in the clip. Per clip, tubes of
ground truth and prediction match if IoU > 0.5. The quality for window length k is
sum of IoU / (TP + FP/2 + FN/2) over all clips of all videos; the metric is the mean over the window lengths.
Joint histograms are counted once per frame and summed over the clips of all windows.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from entitysam.evaluation.evaluator import EvaluationError, Evaluator
from entitysam.evaluation.tube_matching import VideoTubes
from entitysam.evaluation.videos import PanopticVideo
from entitysam.registry import EVALUATORS

WINDOWS = (1, 2, 4, 6, 8)


@dataclass(frozen=True)
class TubeCounts:
    """Counts of the matching per window length (rows) and category (columns): float64 or int64 [W, C].

    `frames` is the length of the video; longer windows have no clips.
    """

    frames: int
    iou_sum: np.ndarray
    tp: np.ndarray
    fp: np.ndarray
    fn: np.ndarray

    @staticmethod
    def total(records: Sequence["TubeCounts"], windows: int, categories: int) -> "TubeCounts":
        """The sum over videos, in the given order."""
        zero = np.zeros((windows, categories))
        sums = [
            sum((getattr(r, name) for r in records), zero.astype(float if name == "iou_sum" else np.int64))
            for name in ("iou_sum", "tp", "fp", "fn")
        ]
        return TubeCounts(max((r.frames for r in records), default=0), *sums)

    def quality(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Overall, segmentation and recognition quality in 0..1, each [W, C]; 0 where all counts are 0."""
        matched, half_wrong = self.tp, (self.fp + self.fn) / 2
        recognition = matched / np.maximum(matched + half_wrong, 0.5)  # 0.5 is the smallest non-zero divisor
        segmentation = self.iou_sum / np.maximum(matched, 1)
        return self.iou_sum / np.maximum(matched + half_wrong, 0.5), segmentation, recognition

    def counted(self) -> np.ndarray:
        """bool [W, C]: the category occurs at all."""
        return self.tp + self.fp + self.fn > 0


class TubePQ(Evaluator[PanopticVideo, TubeCounts]):
    """What VEQ and VPQ share: the tables of a video, and one vectorised matching per window length.

    Attributes:
        without_clips: consequence of windows without clips for the metric.
    """

    scale = 1.0
    without_clips = "these windows are undefined, and so is the mean"

    def __init__(self, windows: Sequence[int]) -> None:
        super().__init__()
        self.windows = tuple(windows)

    def notes(self) -> list[str]:
        """Which windows have no clips, or not in all videos."""
        lengths = [record.frames for record in self.records.values()]
        name, longest = type(self).__name__, max(lengths, default=0)
        empty = [window for window in self.windows if window > longest]
        if lengths and empty:
            listed = ", ".join(map(str, empty))
            return [
                f"{name}: the longest video has {longest} frames, so there is no clip of {listed} frames; "
                f"{self.without_clips}. For short videos set `windows`, e.g. "
                f"{{name: {name.lower()}, windows: {[window for window in self.windows if window <= longest]}}}."
            ]
        short = sum(length < max(self.windows) for length in lengths)
        if short:
            return [f"{name}: {short} of {len(lengths)} videos are shorter than some windows and have no clips there."]
        return []

    def _count(self, tubes: VideoTubes, categories: int) -> TubeCounts:
        rows = [tubes.match(window, categories) for window in self.windows]
        return TubeCounts(tubes.frames, *(np.stack(column) for column in zip(*rows)))


@EVALUATORS.register("veq")
class VEQ(TubePQ):
    """Video entity quality: every segment is an entity, categories are ignored. Percent.

    A video without a prediction is skipped and counted in `warnings`, as the published evaluator does. `compute`
    returns VEQ, VEQ-SQ, VEQ-RQ and VEQ@k per window length; a window without clips counts 0, which `notes` reports
    (`per_video` omits it, so that short videos can be compared).

    Args:
        windows: lengths of the clips in frames.
    """

    without_clips = "these windows count 0 in VEQ, VEQ-SQ and VEQ-RQ, as in the published evaluator"

    def __init__(self, windows: Sequence[int] = WINDOWS) -> None:
        super().__init__(windows)

    def measure(self, video: PanopticVideo, warnings: Counter[str]) -> TubeCounts | None:
        if video.prediction is None:
            warnings["videos without a prediction, skipped by VEQ"] += 1
            return None
        return self._count(VideoTubes.of_video(video, warnings, check_listed_area=True).class_agnostic(), categories=1)

    def summarise(self, records: Sequence[TubeCounts]) -> dict[str, float]:
        total = TubeCounts.total(records, len(self.windows), 1)
        overall, segmentation, recognition = (100 * quality[:, 0] for quality in total.quality())
        result = {"VEQ": overall.mean(), "VEQ-SQ": segmentation.mean(), "VEQ-RQ": recognition.mean()}
        result |= {f"VEQ@{window}": value for window, value in zip(self.windows, overall)}
        return {name: float(value) for name, value in result.items()}

    def per_video(self) -> dict[Any, dict[str, float]]:
        rows = {}
        for video_id in sorted(self.records):
            record = self.records[video_id]
            fits = [index for index, window in enumerate(self.windows) if window <= record.frames]
            qualities = (100 * quality[fits, 0].mean() if fits else np.nan for quality in record.quality())
            rows[video_id] = dict(zip(("VEQ", "VEQ-SQ", "VEQ-RQ"), map(float, qualities)))
        return rows


class CategoryPQ(TubePQ):
    """Panoptic quality per category: what VPQ and the PQ of images share.

    Args:
        categories: mappings with `id` and `isthing`, from the ground-truth file.
        windows: lengths of the clips in frames.
    """

    def __init__(self, categories: Sequence[Mapping[str, Any]], windows: Sequence[int]) -> None:
        super().__init__(windows)
        self.category_ids = np.unique([int(category["id"]) for category in categories])
        is_thing = {int(category["id"]): bool(category.get("isthing", 1)) for category in categories}
        self.is_thing = np.array([is_thing[int(category)] for category in self.category_ids], bool)
        self.groups = {"": np.ones_like(self.is_thing), "-Th": self.is_thing, "-St": ~self.is_thing}

    def _tubes(self, video: PanopticVideo, warnings: Counter[str]) -> VideoTubes:
        return VideoTubes.of_video(video, warnings)

    def measure(self, video: PanopticVideo, warnings: Counter[str]) -> TubeCounts:
        tubes = self._tubes(video, warnings)
        predicted = tubes.predicted
        for t, n in np.argwhere(predicted.listed & ~np.isin(predicted.category, self.category_ids))[:1]:
            raise EvaluationError(
                f"video {video.video_id}, prediction, frame {t}: id {predicted.ids[n]} has category "
                f"{predicted.category[t, n]}, which the ground truth does not know"
            )
        unknown = tubes.truth.listed & ~np.isin(tubes.truth.category, self.category_ids)
        warnings["annotated segments of an unknown category, left out"] += int(unknown.any(0).sum())
        counts = self._count(tubes.with_categories(self.category_ids), categories=len(self.category_ids) + 1)
        # The last column counts annotations of unknown categories; no group includes it.
        columns = (values[:, :-1] for values in (counts.iou_sum, counts.tp, counts.fp, counts.fn))
        return TubeCounts(counts.frames, *columns)


@EVALUATORS.register("vpq")
class VPQ(CategoryPQ):
    """Video panoptic quality: VEQ per category, averaged over the categories that occur. Percent.

    `compute` returns VPQ, VPQ-Th, VPQ-St and VPQ@k; NaN if a group has no category in some window (the published
    evaluator divides by zero there).
    """

    def __init__(self, categories: Sequence[Mapping[str, Any]], windows: Sequence[int] = WINDOWS) -> None:
        super().__init__(categories, windows)

    def summarise(self, records: Sequence[TubeCounts]) -> dict[str, float]:
        total = TubeCounts.total(records, len(self.windows), len(self.category_ids))
        quality, counted = 100 * total.quality()[0], total.counted()
        per_window = {name: group_mean(quality, counted & group) for name, group in self.groups.items()}
        result = {f"VPQ{name}": float(values.mean()) for name, values in per_window.items()}
        return result | {f"VPQ@{window}": float(value) for window, value in zip(self.windows, per_window[""])}


def group_mean(values: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Mean over the columns of [W, C] that are members of the row's group; NaN for an empty group."""
    count = members.sum(-1)
    return np.where(count > 0, np.where(members, values, 0).sum(-1) / np.maximum(count, 1), np.nan)
