"""MMG, multi-level mask generation (E-SAM, section 3.2): object masks, and part and subpart masks in dense regions."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torchvision.ops import nms

from entitysam.esam.bitmasks import MaskSet, boxes, unpack
from entitysam.esam.prompting import OBJECT, PART, SUBPART, PromptedMasks
from entitysam.esam.superpixels import Superpixels
from entitysam.esam.suppression import mask_nms, matches_any


@dataclass(frozen=True)
class MaskGenerationConfig:
    """Attributes:
    enabled: False: SAM's automatic masks instead (Table 3), or their object level if EMR follows (ours).
    object_nms: theta_O, NMS threshold of object masks (Table 4: 0.8).
    object_best_iou: gamma_O, minimum IoU of an object mask with any best mask, Eq. (2) (Table 4: 0.6).
    base_nms: N_t, minimum NMS threshold of part and subpart masks, Eq. (4) (ours: 0.7, SAM's NMS threshold).
    automatic_nms: NMS threshold on boxes of the plain automatic masks (SAM's automatic mask generator: 0.7).
    """

    enabled: bool = True
    object_nms: float = 0.8
    object_best_iou: float = 0.6
    base_nms: float = 0.7
    automatic_nms: float = 0.7


@dataclass
class MultiLevelMasks:
    """Result of MMG.

    Attributes:
        objects: entity candidates by descending score, with logits.
        parts, subparts: masks by descending score; USR derives prompts from them.
    """

    objects: MaskSet
    parts: MaskSet
    subparts: MaskSet


def generate_masks(
    prompted: PromptedMasks, superpixels: Superpixels, config: MaskGenerationConfig, refined_later: bool = True
) -> MultiLevelMasks:
    """Multi-level masks of the coarse grid.

    Args:
        refined_later: EMR follows. With MMG disabled EMR gets the object level of the automatic masks (the paper does
            not specify it); without EMR the automatic masks of all levels are the baseline.
    """
    details = replace(prompted.masks, logits=None)
    density = superpixels.density if config.enabled else torch.zeros_like(superpixels.density)
    parts = detail_masks(details[prompted.level == PART], density, config)
    subparts = detail_masks(details[prompted.level == SUBPART], density, config)
    if config.enabled:
        return MultiLevelMasks(object_masks(prompted, config), parts, subparts)
    plain = prompted.masks[prompted.level == OBJECT] if refined_later else prompted.masks
    return MultiLevelMasks(automatic_masks(plain, config), parts, subparts)


def object_masks(prompted: PromptedMasks, config: MaskGenerationConfig) -> MaskSet:
    """The refined object map: NMS at theta_O, then only masks that match a best mask (Eq. 2)."""
    bare = replace(prompted.masks, logits=None)
    index = (prompted.level == OBJECT).nonzero().squeeze(1)
    index = index[mask_nms(bare[index], config.object_nms)[0]]
    # Object-level masks that merge several entities match no best mask.
    index = index[matches_any(bare[index], bare[prompted.is_best], config.object_best_iou)]
    return prompted.masks[index]


def detail_masks(masks: MaskSet, density: Tensor, config: MaskGenerationConfig) -> MaskSet:
    """Adaptive NMS (Eq. 4): a kept mask suppresses others above max(N_t, mean density over it)."""
    return masks[mask_nms(masks, (mean_density(masks, density)).clamp(min=config.base_nms))[0]]  # max(N_t, D)


def mean_density(masks: MaskSet, density: Tensor) -> Tensor:
    """Mean of the density map [h, w] over each of N masks: float [N]; 0 for empty masks."""
    if not len(masks):
        return density.new_zeros(0)
    step = 8 if density.device.type == "cpu" else 1024  # a few masks at a time stay in the CPU cache
    sums = [
        unpack(words, masks.width).flatten(1).view(torch.uint8).float() @ density.flatten()
        for words in masks.words.split(step)
    ]
    return torch.cat(sums) / masks.areas.clamp(min=1)


def automatic_masks(masks: MaskSet, config: MaskGenerationConfig) -> MaskSet:
    """NMS on boxes as in SAM's automatic mask generator; masks by descending score."""
    found = boxes(masks.words, masks.width).float()
    return masks[nms(found, masks.scores, config.automatic_nms)]
