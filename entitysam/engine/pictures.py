"""A picture for the learning curve: the frames of a clip, its targets, and what the network predicts for them."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from entitysam.structures import Clip, ClipOutput

OPACITY = 0.6
MAX_FRAMES = 4
SIDE = 256


def palette(count: int) -> np.ndarray:
    """float32 [count, 3] well separated colours in 0..255: hues by the golden angle, two brightnesses."""
    hue = np.arange(count) * 0.618034 % 1.0
    phase = hue[:, None] + np.array([0.0, 2 / 3, 1 / 3])
    value = np.where(np.arange(count) % 2, 255.0, 190.0)[:, None]
    return (value * (0.5 + 0.5 * np.cos(2 * np.pi * phase))).astype(np.float32)


@torch.no_grad()
def clip_picture(clip: Clip, output: ClipOutput, queries: Tensor, order: Tensor) -> np.ndarray:
    """Three rows of up to 4 frames: image, targets, predictions of the matched queries in the colours of their targets.

    Args:
        clip: on any device; output: what the network says of it; queries, order: the matched pairs (query, target).

    Returns:
        uint8 [3 * 256, T * 256, 3] RGB.
    """
    chosen = torch.linspace(0, len(clip.frames) - 1, min(len(clip.frames), MAX_FRAMES)).long()
    size = (SIDE, SIDE)
    images = F.interpolate(clip.frames[chosen].float().cpu(), size=size, mode="area").permute(0, 2, 3, 1).numpy()
    colours = palette(len(clip.targets))
    targets = F.interpolate(clip.targets.masks[:, chosen].to(torch.uint8).cpu(), size=size, mode="nearest").bool()
    logits = output.mask_logits[queries][:, chosen.to(queries.device)].float().cpu()
    masks = F.interpolate(logits, size=size, mode="bilinear") > 0 if len(logits) else targets[:0]
    rows = [images, _paint(images, targets, colours), _paint(images, masks, colours[order.cpu().numpy()])]
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows]).round().astype(np.uint8)


def _paint(images: np.ndarray, masks: Tensor, colours: np.ndarray) -> np.ndarray:
    """Blends masks [N, T, H, W] over images [T, H, W, 3]."""
    painted = images.copy()
    for mask, colour in zip(masks.numpy(), colours, strict=True):
        painted[mask] = (1 - OPACITY) * images[mask] + OPACITY * colour
    return painted
