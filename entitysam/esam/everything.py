"""SAM's "everything" mode: all masks of an image, including parts and overlaps; MASA's training data (supplement J.2)."""

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import nms

from entitysam.esam.bitmasks import boxes
from entitysam.esam.prompting import PromptingConfig, point_grid, prompt
from entitysam.esam.protocol import PromptableSegmenter

BOX_NMS = 0.7
SMALLEST_REGION = 100  # pixels; smaller islands and holes of a mask are removed


@torch.no_grad()
def everything(
    segmenter: PromptableSegmenter, image: np.ndarray, config: PromptingConfig | None = None
) -> tuple[list[np.ndarray], list[float]]:
    """Masks of one image.

    Args:
        segmenter: e.g. `sam_backend.sam_segmenter("vit_h")`.
        image: uint8 [H, W, 3] RGB.
        config: 32 points a side, least predicted IoU 0.88 and least stability 0.95 by default.

    Returns:
        bool [H, W] masks by descending score, and the scores in 0..1.
    """
    config = config or PromptingConfig()
    height, width = image.shape[:2]
    encoded = segmenter.encode(torch.from_numpy(image).permute(2, 0, 1))
    masks = prompt(encoded, point_grid(config.points_per_side, height, width), config).masks
    masks = masks[nms(boxes(masks.words, masks.width).float(), masks.scores, BOX_NMS)]
    found, scores = [], []
    for logits, score in zip(masks.logits if masks.logits is not None else [], masks.scores.tolist()):
        mask = clean(_at_full_size(logits, height, width), SMALLEST_REGION)
        if mask.any():
            found.append(mask)
            scores.append(float(score))
    return found, scores


def _at_full_size(logits: Tensor, height: int, width: int) -> np.ndarray:
    enlarged = F.interpolate(logits.float().clamp(-100, 100)[None, None], size=(height, width), mode="bilinear")
    return (enlarged[0, 0] > 0).cpu().numpy()


def clean(mask: np.ndarray, smallest: int) -> np.ndarray:
    """Removes holes and islands of fewer than `smallest` pixels; if all islands are smaller, the largest is kept."""
    filled = ~_large_regions(~mask, smallest, keep_one=False)
    return _large_regions(filled, smallest, keep_one=True)


def _large_regions(mask: np.ndarray, smallest: int, keep_one: bool) -> np.ndarray:
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    area = statistics[:, cv2.CC_STAT_AREA]
    kept = area >= smallest
    if keep_one and len(area) > 1 and not kept[1:].any():
        kept[1 + area[1:].argmax()] = True
    kept[0] = False
    return kept[labels]
