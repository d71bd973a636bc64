"""Losses on every cell of the mask grid, instead of on sampled points; unlabelled pixels can be left out.

At the small image sizes of a small model, all S/4 x S/4 cells cost less than drawing and interpolating points, and a cell's
target is the share of it that the entity covers.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from entitysam.structures import Targets


@dataclass(frozen=True)
class DenseTargets:
    """Targets at the resolution of the mask logits; P = h * w cells.

    Attributes:
        cover: float32 [N, T, P] share of each cell that an entity covers.
        known: float32 [T, P] share of each cell that is labelled; all 1 where void counts as background.
    """

    cover: Tensor
    known: Tensor

    @classmethod
    def of(cls, targets: Targets, size: int, ignore_void: bool = False) -> "DenseTargets":
        """Targets [N, T, S, S] averaged over the cells of a grid of `size` x `size`.

        Args:
            ignore_void: pixels of no entity, padding among them, are not known.
        """
        cover = _cells(targets.masks, size)
        known = cover.sum(0) if ignore_void else torch.ones(targets.masks.shape[1], size * size, device=cover.device)
        return cls(cover, known.clamp(max=1))


def _cells(masks: Tensor, size: int) -> Tensor:
    """bool [..., S, S] -> float32 [..., size * size], averages over cells."""
    if not masks.numel():
        return torch.zeros(*masks.shape[:-2], size * size, device=masks.device)
    # Pooling is much faster than `area` interpolation, and equal where the sizes divide.
    factor = masks.shape[-1] // size
    if masks.shape[-1] == factor * size:
        return F.avg_pool2d(masks.float().flatten(0, -3)[:, None], factor).view(*masks.shape[:-2], -1)
    return F.interpolate(masks.float().flatten(0, -3)[:, None], size=(size, size), mode="area").view(
        *masks.shape[:-2], -1
    )


def dense_cost(mask_logits: Tensor, targets: DenseTargets) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy and dice of every query with every target over the tube: two [Q, N].

    Args:
        mask_logits: [Q, T, h, w].
    """
    logits, known = mask_logits.flatten(1), targets.known.flatten()  # [Q, T P], [T P]
    cover = (targets.cover * targets.known).flatten(1)  # [N, T P]
    # bce(x, t) = softplus(x) - x t, so that the sum over cells is a matrix product.
    mask = ((F.softplus(logits) * known).sum(1, keepdim=True) - logits @ cover.T) / known.sum().clamp(min=1)
    prob = logits.sigmoid() * known
    dice = 1 - (2 * prob @ cover.T + 1) / (prob.sum(1)[:, None] + cover.sum(1)[None] + 1)
    return mask, dice


def dense_losses(logits: Tensor, cover: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy and dice of pairs of one mask on one frame: logits, cover, known [M, P] -> two [M]."""
    entropy = F.binary_cross_entropy_with_logits(logits, cover, reduction="none")
    mask = (entropy * known).sum(1) / known.sum(1).clamp(min=1)
    prob, cover = logits.sigmoid() * known, cover * known
    dice = 1 - (2 * (prob * cover).sum(1) + 1) / (prob.sum(1) + cover.sum(1) + 1)
    return mask, dice


@torch.no_grad()
def best_iou(mask_logits: Tensor, targets: DenseTargets) -> Tensor:
    """IoU [Q, T] of each mask (logit > 0) with the entity of that frame that it overlaps most; 0 for an empty mask.

    Args:
        mask_logits: [Q, T, h, w].
    """
    predicted = (mask_logits.flatten(2) > 0).float() * targets.known  # [Q, T, P]
    cover = (targets.cover > 0.5).float() * targets.known
    shared = torch.einsum("qtp,ntp->tqn", predicted, cover)  # [T, Q, N] cells
    union = predicted.sum(2).T[:, :, None] + cover.sum(2).T[:, None] - shared  # [T, Q, 1] + [T, 1, N]
    iou = shared / union.clamp(min=1e-3)
    return iou.amax(2).T if iou.shape[2] else predicted.new_zeros(predicted.shape[:2])  # [T, Q] -> [Q, T]


@torch.no_grad()
def entity_at(points: Tensor, targets: Targets) -> Tensor:
    """Row of the entity under each point, -1 where there is none: points [Q, T, 2] in pixels -> int64 [Q, T]."""
    side = targets.masks.shape[-1]
    x, y = points.round().long().clamp(0, side - 1).unbind(-1)
    frame = torch.arange(points.shape[1], device=points.device)
    under = targets.masks[:, frame, y, x]  # [N, Q, T]
    return torch.where(under.any(0), under.int().argmax(0), -1)


@torch.no_grad()
def void_share(mask_logits: Tensor, targets: DenseTargets) -> Tensor:
    """[Q] share of each predicted tube that is unlabelled; 0 for an empty one. mask_logits: [Q, T, h, w]."""
    predicted = (mask_logits.flatten(2) > 0).float()
    return (predicted * (1 - targets.known)).sum((1, 2)) / predicted.sum((1, 2)).clamp(min=1)
