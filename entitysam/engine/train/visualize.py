"""Images for the training log: the frames of a clip, its targets, and the predictions for them."""

from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from entitysam.structures import Clip, ClipOutput, PairOutput

OPACITY = 0.6
MAX_FRAMES = 4
SIDE = 256


def palette(count: int) -> np.ndarray:
    """float32 [count, 3] RGB colours in 0..255 that are easy to tell apart: hues by the golden angle, two brightnesses."""
    hue = np.arange(count) * 0.618034 % 1.0
    phase = hue[:, None] + np.array([0.0, 2 / 3, 1 / 3])
    value = np.where(np.arange(count) % 2, 255.0, 190.0)[:, None]
    return (value * (0.5 + 0.5 * np.cos(2 * np.pi * phase))).astype(np.float32)


def training_image(
    clip: Clip, output: ClipOutput | PairOutput, criterion: Any, generator: torch.Generator
) -> np.ndarray:
    """`pair_image` for MASA, `clip_image` for EntitySAM with the pairs that its criterion matches."""
    if isinstance(output, PairOutput):
        return pair_image(clip, output)
    return clip_image(clip, output, *criterion.match(output, clip.targets, generator))


@torch.no_grad()
def pair_image(clip: Clip, output: PairOutput) -> np.ndarray:
    """Two rows of two views: instances in their colours; then on the reference view, on a box of every instance, the
    colour of the most similar instance of the key view (grey: background).

    Args:
        clip: on any device.
        output: of the network for this clip.

    Returns:
        uint8 [2 * 256, 2 * 256, 3] RGB.
    """
    colours = np.concatenate([palette(len(clip.targets)), np.full((1, 3), 128, np.float32)])
    views = clip.frames.permute(0, 2, 3, 1).cpu().numpy()
    visible, boxes = clip.targets.visible.cpu().numpy(), clip.targets.boxes.cpu().numpy()
    truth = [_boxed(view, boxes[visible[:, t], t], colours[:-1][visible[:, t]]) for t, view in enumerate(views)]
    rows = output.reference_instances
    shown = rows >= 0
    matched = torch.full_like(rows, -1)
    if len(output.key):
        similarity = F.normalize(output.reference.float(), dim=1) @ F.normalize(output.key.float(), dim=1).T
        matched = output.key_instances[similarity.argmax(1)]
    found = _boxed(views[1], output.reference_boxes[shown].cpu().numpy(), colours[matched[shown].cpu().numpy()])
    return np.concatenate([np.concatenate(truth, axis=1), np.concatenate([truth[0], found], axis=1)])


def _boxed(view: np.ndarray, boxes: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """A view [S, S, 3] at 256 pixels with boxes [N, 4] in their colours."""
    drawn = cv2.resize(view, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    for box, colour in zip((boxes * SIDE / len(view)).round().astype(int).tolist(), colours.tolist(), strict=True):
        cv2.rectangle(drawn, box[:2], box[2:], colour, 2)
    return drawn


@torch.no_grad()
def clip_image(clip: Clip, output: ClipOutput, queries: Tensor, order: Tensor) -> np.ndarray:
    """Three rows of up to 4 frames: image, targets, predictions of the matched queries in the colours of their targets.

    Args:
        clip: on any device.
        output: of the network for this clip.
        queries, order: indices of the matched pairs (query, target).

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
