"""The mask gallery of the dense point grid, EMR's reference (E-SAM, section 3.3, Eq. 6)."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from entitysam.esam.bitmasks import MaskSet
from entitysam.esam.prompting import OBJECT, PromptedMasks
from entitysam.esam.suppression import mask_nms


@dataclass
class Gallery:
    """Distinct masks of the dense grid, and the guidance mask of each point.

    Attributes:
        masks: R masks by descending score, pairwise IoU at most theta_O.
        points: float [P, 2] (x, y) image pixels; only points with a guidance mask.
        guidance: int64 [P] index into `masks` of G_p, Eq. (6).
    """

    masks: MaskSet
    points: Tensor
    guidance: Tensor


def build_gallery(prompted: PromptedMasks, num_points: int, object_nms: float, tolerance: float) -> Gallery:
    """Builds the gallery from the object map O64 and the best map B64 and selects the guidance mask of each point.

    EMR counts how often a mask is a guidance mask, but masks of two points are never exactly equal. Masks that NMS at
    theta_O suppresses therefore count as the mask that suppressed them (ours). If one of the two masks of a point fails
    SAM's filters, the other is its guidance mask (ours).

    Args:
        num_points: P, number of points of the dense grid.
        object_nms: theta_O.
        tolerance: tau.
    """
    wanted = prompted.is_best | (prompted.level == OBJECT)
    masks = replace(prompted.masks, logits=None)[wanted]
    kept, representative = mask_nms(masks, object_nms)
    candidates = PromptedMasks(masks, prompted.level[wanted], prompted.is_best[wanted], prompted.point[wanted])
    chosen = guidance_of_points(candidates, num_points, tolerance)
    chosen = chosen[chosen >= 0]
    return Gallery(masks[kept], masks.points[chosen], representative[chosen])


def guidance_of_points(prompted: PromptedMasks, num_points: int, tolerance: float) -> Tensor:
    """Index of each point's guidance mask G_p among the prompted masks: int64 [num_points], -1 if it has none."""
    index = torch.arange(len(prompted.point), device=prompted.point.device)
    of_object = torch.full((num_points,), -1, dtype=torch.int64, device=index.device)
    of_best = of_object.clone()
    is_object = prompted.level == OBJECT
    of_object[prompted.point[is_object]] = index[is_object]
    of_best[prompted.point[prompted.is_best]] = index[prompted.is_best]
    scores = torch.cat([prompted.masks.scores, prompted.masks.scores.new_zeros(1)])  # index -1 reads the appended 0
    return choose_guidance(of_object, of_best, scores[of_object], scores[of_best], tolerance)


def choose_guidance(
    of_object: Tensor, of_best: Tensor, object_score: Tensor, best_score: Tensor, tolerance: float
) -> Tensor:
    """Eq. (6) for P points: the object mask if the best mask scores less than tau higher, else the best mask.

    Args:
        of_object, of_best: int64 [P] indices of the two masks, -1 = none.
        object_score, best_score: float [P] in 0..1.

    Returns:
        int64 [P] index of the guidance mask, -1 = none.
    """
    trusts_object = (best_score - object_score < tolerance) | (of_best < 0)
    return torch.where(trusts_object & (of_object >= 0), of_object, of_best)
