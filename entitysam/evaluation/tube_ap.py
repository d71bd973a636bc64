"""Average precision of mask tubes: YouTube-VIS 2019/2021 (Yang et al., ICCV 2019) and OVIS (Qi et al., IJCV 2022)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from entitysam.evaluation.average_precision import (
    ALL_AREAS,
    AveragePrecision,
    Matches,
    best_detections,
    count_odd_scores,
    match,
    outside_of,
    rle_intersections,
)
from entitysam.evaluation.evaluator import EvaluationError
from entitysam.evaluation.videos import Instance, InstanceVideo
from entitysam.registry import EVALUATORS

AREAS = {"": ALL_AREAS, "s": (0.0, 128.0**2), "m": (128.0**2, 256.0**2), "l": (256.0**2, 1e10)}
OCCLUSIONS = {"-light": (0.0, 0.25), "-medium": (0.25, 0.5), "-heavy": (0.5, 1.0)}
OCCLUSION_LEVEL = {"no_occlusion": 0.0, "slight_occlusion": 0.25, "severe_occlusion": 0.75}


class TubeAP(AveragePrecision):
    """The common part of the evaluators of mask tubes.

    Args:
        categories: mappings with `id`; detections of other categories are dropped and counted in `warnings`.
        class_agnostic: treat all categories as one; the caps then apply per video.
        by_occlusion: add the occlusion groups of OVIS; annotations then need `occlusion`.
    """

    def __init__(
        self, categories: Sequence[Mapping[str, Any]], class_agnostic: bool = False, by_occlusion: bool = False
    ) -> None:
        super().__init__("^ca" if class_agnostic else "", [*AREAS, *(OCCLUSIONS if by_occlusion else ())])
        self.category_ids = sorted({int(category["id"]) for category in categories})
        self.class_agnostic = class_agnostic
        self.by_occlusion = by_occlusion

    def measure(self, video: InstanceVideo, warnings: Counter[str]) -> dict[int, Matches]:
        count_odd_scores(video, warnings)
        known = set(self.category_ids)
        dropped = sum(instance.category_id not in known for instance in (*video.truth, *video.prediction))
        warnings["instances of an unknown category, dropped"] += dropped
        groups = [[category] for category in self.category_ids]
        if self.class_agnostic:
            groups = [self.category_ids]
        record = {}
        for group in groups:
            # Ascending categories, then file order: breaks ties between equal scores.
            truth = [instance for c in group for instance in video.truth if instance.category_id == c]
            detections = [instance for c in group for instance in video.prediction if instance.category_id == c]
            if truth or detections:
                key = -1 if self.class_agnostic else group[0]
                record[key] = self._match(truth, best_detections(detections), f"video {video.video_id}")
        return record

    def _match(self, truth: Sequence[Instance], detections: Sequence[Instance], where: str) -> Matches:
        ranges = list(AREAS.values())
        outside = outside_of(tube_areas(detections), ranges)
        ignore = outside_of(tube_areas(truth), ranges)
        if self.by_occlusion:
            # Detections have no occlusion, so they are never ignored because of it.
            outside = np.concatenate([outside, np.repeat(outside[:1], len(OCCLUSIONS), axis=0)])
            occlusion = np.array([_occlusion(instance, where) for instance in truth])
            ignore = np.concatenate([ignore, ignore[:1] | outside_of(occlusion, list(OCCLUSIONS.values()))])
        crowd = np.array([instance.crowd for instance in truth], bool)
        findable = np.array([instance.annotation_id != 0 for instance in truth], bool)
        scores = np.array([detection.score for detection in detections])
        return match(tube_iou(detections, truth, where), scores, outside, ignore | crowd, crowd, findable)


@EVALUATORS.register("ytvis_ap")
class YouTubeVISAP(TubeAP):
    """AP, AP50, AP75, AR1, AR10, AR100; APs, APm, APl, ARs, ARm, ARl by tube area. See `TubeAP`."""

    def __init__(self, categories: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(categories)


@EVALUATORS.register("ytvis_ap_agnostic")
class AgnosticYouTubeVISAP(TubeAP):
    """The class-agnostic version of `ytvis_ap`: AP^ca, AR^ca1 and so on."""

    def __init__(self, categories: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(categories, class_agnostic=True)


@EVALUATORS.register("ovis_ap")
class OVISAP(TubeAP):
    """`ytvis_ap` with AP-light, AP-medium and AP-heavy (and AR) by occlusion of the annotation."""

    def __init__(self, categories: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(categories, by_occlusion=True)


def tube_iou(detections: Sequence[Instance], truth: Sequence[Instance], where: str = "") -> np.ndarray:
    """Sum of intersections over sum of unions, float64 [D, G].

    Frames beyond the shorter of the two lists are ignored; two empty tubes have IoU 0.

    Raises:
        EvaluationError: masks of different sizes on a frame.
    """
    frames = max((len(instance.masks) for instance in (*detections, *truth)), default=0)
    intersection = np.zeros((len(detections), len(truth)))
    for t in range(frames if len(truth) else 0):
        d_present, g_present = _present(detections, t), _present(truth, t)
        if d_present and g_present:
            masks = [detections[d].masks[t] for d in d_present], [truth[g].masks[t] for g in g_present]
            shared = rle_intersections(*masks)
            if shared.min() < 0:
                raise EvaluationError(f"{where}, frame {t}: predicted and annotated masks differ in size")
            intersection[np.ix_(d_present, g_present)] += shared
    # Union over the frames that both tubes have: areas up to the end of the shorter one.
    until = np.minimum.outer([len(d.masks) for d in detections], [len(g.masks) for g in truth]).astype(int)
    area_until = [
        np.cumsum(np.pad(_mask_areas(side, frames), ((0, 0), (1, 0))), axis=1) for side in (detections, truth)
    ]
    rows, columns = np.ogrid[: len(detections), : len(truth)]
    union = area_until[0][rows, until] + area_until[1][columns, until] - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def tube_areas(instances: Sequence[Instance]) -> np.ndarray:
    """Mean mask area over the frames with a non-empty mask, float64 [n]; the annotated area if there is one."""
    frames = max((len(instance.masks) for instance in instances), default=0)
    areas = _mask_areas(instances, frames)
    mean = areas.sum(1) / np.maximum((areas > 0).sum(1), 1)
    return np.array([m if i.area is None else i.area for i, m in zip(instances, mean)], float)


def _mask_areas(instances: Sequence[Instance], frames: int) -> np.ndarray:
    """Area in pixels, float64 [n, frames]; 0 where absent."""
    areas = np.zeros((len(instances), frames))
    for row, instance in enumerate(instances):
        present = [t for t, rle in enumerate(instance.masks) if rle is not None]
        if present:
            areas[row, present] = coco_mask.area([instance.masks[t] for t in present])
    return areas


def _present(instances: Sequence[Instance], t: int) -> list[int]:
    return [n for n, i in enumerate(instances) if t < len(i.masks) and i.masks[t] is not None]


def _occlusion(instance: Instance, where: str) -> float:
    """Mean of the more occluded half of the annotated frames, 0..1."""
    if not instance.occlusion:
        raise EvaluationError(f"{where}: annotation {instance.annotation_id} has no occlusion labels")
    levels = sorted(OCCLUSION_LEVEL[label] for label in instance.occlusion if label is not None)
    return float(np.mean(levels[len(levels) // 2 :]))
