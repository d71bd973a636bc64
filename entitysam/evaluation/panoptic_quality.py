"""Panoptic quality of images (Kirillov et al., CVPR 2019), with the rules of the COCO panoptic evaluator."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from entitysam.evaluation.evaluator import EvaluationError
from entitysam.evaluation.tube_matching import VideoTubes
from entitysam.evaluation.tube_pq import CategoryPQ, TubeCounts, group_mean
from entitysam.evaluation.videos import PanopticVideo
from entitysam.registry import EVALUATORS


@EVALUATORS.register("pq")
class PanopticQuality(CategoryPQ):
    """PQ, SQ, RQ over all categories, things (-Th) and stuff (-St) that occur; NaN for an empty group. Fractions.

    Takes each image as a `PanopticVideo` of one frame. Differs from VPQ in the handling of invalid input: if an id is
    listed twice, the later entry counts, and an IoU above 1 is counted in `warnings`.

    Args:
        categories: mappings with `id` and `isthing`, from the ground-truth file.
    """

    scale = 100.0

    def __init__(self, categories: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(categories, windows=(1,))

    def _tubes(self, video: PanopticVideo, warnings: Counter[str]) -> VideoTubes:
        if len(video.truth) != 1:
            raise EvaluationError(f"image {video.video_id}: {len(video.truth)} frames, an image has one")
        return replace(VideoTubes.of_video(video, warnings, repeated="replace"), strict=False)

    def summarise(self, records: Sequence[TubeCounts]) -> dict[str, float]:
        total = TubeCounts.total(records, 1, len(self.category_ids))
        counted = total.counted()
        return {
            f"{metric}{name}": float(group_mean(quality, counted & group)[0])
            for name, group in self.groups.items()
            for metric, quality in zip(("PQ", "SQ", "RQ"), total.quality())
        }
