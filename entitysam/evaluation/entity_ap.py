"""AP^e of EntitySeg (Qi et al., Open-World Entity Segmentation): class-agnostic AP of non-overlapping masks."""

from collections import Counter

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

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
from entitysam.evaluation.videos import InstanceVideo
from entitysam.registry import EVALUATORS

AREAS = {"": ALL_AREAS, "s": (0.0, 32.0**2), "m": (32.0**2, 96.0**2), "l": (96.0**2, 1e10)}


@EVALUATORS.register("entity_ap")
class EntityAP(AveragePrecision):
    """AP^e, AP^e50, AP^e75, AR^e1, AR^e10, AR^e100 and by area (APs ...) over images; categories are ignored.

    Overlapping masks are accepted too; predictions for AP^e are made disjoint by `make_exclusive`.
    """

    def __init__(self) -> None:
        super().__init__("^e", list(AREAS))

    def measure(self, video: InstanceVideo, warnings: Counter[str]) -> dict[int, Matches]:
        count_odd_scores(video, warnings)
        detections, truth = best_detections(video.prediction), video.truth
        if not detections and not truth:
            return {}
        masks, truth_masks = [d.masks[0] for d in detections], [g.masks[0] for g in truth]
        areas = np.asarray(coco_mask.area(masks), float).reshape(-1)
        counted = np.asarray(coco_mask.area(truth_masks), float).reshape(-1)
        crowd = np.array([annotation.crowd for annotation in truth], bool)
        iou = np.zeros((len(detections), len(truth)))
        if detections and truth:
            shared = rle_intersections(masks, truth_masks)
            if shared.min() < 0:
                raise EvaluationError(f"image {video.video_id}: predicted and annotated masks differ in size")
            whole = np.where(crowd, areas[:, None], areas[:, None] + counted - shared)
            iou = np.divide(shared, whole, out=iou, where=whole > 0)
        ranges = list(AREAS.values())
        annotated = np.array([c if g.area is None else g.area for g, c in zip(truth, counted)], float)
        ignore = outside_of(annotated, ranges) | crowd
        findable = np.array([annotation.annotation_id != 0 for annotation in truth], bool)
        scores = np.array([detection.score for detection in detections])
        return {-1: match(iou, scores, outside_of(areas, ranges), ignore, crowd, findable)}


def make_exclusive(mask_logits: Tensor, class_logits: Tensor, keep: int = 100) -> tuple[Tensor, Tensor]:
    """Makes entity masks disjoint, as CropFormer does before AP^e: a pixel goes to the mask with the highest class score.

    Args:
        mask_logits: [N, H, W].
        class_logits: [N, 2]: entity, no entity.
        keep: number of best entities to keep.

    Returns:
        bool [K, H, W] disjoint masks by descending class score, possibly empty; float [K] scores in 0..1: class
        score x mean of sigmoid(sigmoid(logit)) over the mask. The second sigmoid is that of the published evaluator; it
        limits the factor to 0.62..0.73. Empty masks score 0.
    """
    entity = class_logits.float().softmax(-1)[:, 0]
    order = entity.argsort(descending=True, stable=True)[:keep]
    logits = mask_logits[order].float()
    inside = logits > 0  # [K, H, W]
    owner = inside.int().argmax(0)  # [H, W] first mask in order that covers the pixel
    rank = torch.arange(len(order), device=owner.device).view(-1, 1, 1)  # [K, 1, 1]
    masks = inside & (owner == rank) if len(order) else inside
    confidence = (logits.sigmoid().sigmoid() * masks).sum((1, 2)) / (masks.sum((1, 2)) + 1e-6)
    return masks, entity[order] * confidence
