"""Visualisation of E-SAM's intermediate results, one image per step (as in the paper's Figures 3 and 6)."""

import cv2
import numpy as np
import torch.nn.functional as F
from torch import Tensor

from entitysam.esam.segmenter import Trace, entity_map
from entitysam.esam.superpixels import Superpixels
from entitysam.visualization.overlay import draw_entities

MAX_SIDE = 2048  # larger images are downscaled
PROMPT_COLOUR, LINE_COLOUR = (255, 60, 60), (255, 255, 0)


def explain(image: np.ndarray, trace: Trace) -> dict[str, np.ndarray]:
    """One image per executed step.

    Args:
        image: uint8 [H, W, 3] RGB, as segmented.
        trace: filled by `ESAM.segment`.

    Returns:
        "0_superpixels", "1_amg", "2_mmg", "3_emr", "4_prompts", "5_usr" (executed steps only) -> uint8 [h, w, 3]; (h, w)
        is the image size, limited to 2048 along the longer side.
    """
    ratio = min(1.0, MAX_SIDE / max(image.shape[:2]))
    canvas = image
    if ratio < 1:
        size = max(1, round(image.shape[1] * ratio)), max(1, round(image.shape[0] * ratio))
        canvas = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    maps = {name: entity_map(layers, *canvas.shape[:2]).ids for name, layers in trace.steps.items()}
    images = {}
    if trace.superpixels is not None:
        images["0_superpixels"] = draw_superpixels(canvas, trace.superpixels)
    for number, name in ((1, "AMG"), (2, "MMG"), (3, "EMR"), (5, "USR")):
        if name in maps:
            images[f"{number}_{name.lower()}"] = draw_entities(canvas, maps[name])
    if trace.prompts is not None:
        before = next((maps[name] for name in ("EMR", "MMG", "AMG") if name in maps), np.zeros(canvas.shape[:2], int))
        images["4_prompts"] = draw_prompts(draw_entities(canvas, before, labels=False), trace.prompts * ratio)
    return dict(sorted(images.items()))


def draw_superpixels(image: np.ndarray, superpixels: Superpixels) -> np.ndarray:
    """Superpixel borders over the density of Eq. (3); small superpixels have warmer colours."""
    height, width = image.shape[:2]
    labels = _enlarge(superpixels.labels, height, width).astype(np.int32)
    density = _enlarge(superpixels.density, height, width)
    warm = np.stack([255 * density, 90 * density, 60 * (1 - density)], -1)
    drawn = np.rint(0.65 * image + 0.35 * warm).astype(np.uint8)
    border = np.zeros((height, width), bool)
    border[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    border[1:] |= labels[1:] != labels[:-1]
    drawn[border] = LINE_COLOUR
    return drawn


def draw_prompts(image: np.ndarray, points: Tensor) -> np.ndarray:
    """A copy of the image with a dot at every point, float [n, 2] as (x, y) pixels."""
    drawn = image.copy()
    radius = max(2, round(min(image.shape[:2]) / 120))
    for x, y in points.cpu().tolist():
        centre = int(x), int(y)
        cv2.circle(drawn, centre, radius + 1, (255, 255, 255), -1, cv2.LINE_AA)
        cv2.circle(drawn, centre, radius, PROMPT_COLOUR, -1, cv2.LINE_AA)
    return drawn


def _enlarge(grid: Tensor, height: int, width: int) -> np.ndarray:
    """Resizes a map [h, w] of the mask grid to the image size with nearest-neighbour sampling."""
    return F.interpolate(grid[None, None].float(), (height, width), mode="nearest-exact")[0, 0].cpu().numpy()
