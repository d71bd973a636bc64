"""How much a candidate looks like a track (MASA's supplement, J.4, Eq. 1). Pure functions of tensors; N candidates, M tracks."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou


def bidirectional_softmax(dots: Tensor) -> Tensor:
    """s_1 of Eq. 1: mean of the softmax over the tracks and the softmax over the candidates.

    Args:
        dots: [N, M] products of the embeddings.

    Returns:
        [N, M] in 0..1.
    """
    return (dots.softmax(0) + dots.softmax(1)) / 2


def cosine(dots: Tensor, candidates: Tensor, tracks: Tensor) -> Tensor:
    """s_2 of Eq. 1: cosine of every pair, [N, M] in -1..1; 0 for an embedding of length 0.

    Args:
        dots: [N, M] products of the embeddings.
        candidates, tracks: [N, C], [M, C] the embeddings.
    """
    lengths = candidates.norm(dim=1)[:, None] * tracks.norm(dim=1)
    return dots / lengths.clamp(min=torch.finfo(dots.dtype).tiny)


def appearance(candidates: Tensor, tracks: Tensor, with_cosine: bool = True) -> Tensor:
    """s of Eq. 1, or s_1 alone.

    Args:
        candidates, tracks: embeddings [N, C], [M, C].
        with_cosine: mean of s_1 and s_2; False: s_1.
    """
    dots = candidates @ tracks.T
    soft = bidirectional_softmax(dots)
    return (soft + cosine(dots, candidates, tracks)) / 2 if with_cosine else soft


def overlap(candidates: Tensor, tracks: Tensor) -> Tensor:
    """IoU [N, M] of boxes [N, 4] and [M, 4], xyxy; boxes have an area."""
    return box_iou(candidates, tracks)


def centre_distance(candidates: Tensor, tracks: Tensor) -> Tensor:
    """Distance [N, M] between the centres of boxes [N, 4] and [M, 4], xyxy, in their unit."""
    return torch.cdist(_centres(candidates), _centres(tracks))


def mean_embedding(embeddings: Tensor) -> Tensor:
    """Direction [C] of the mean of unit vectors along [n, C]: one embedding for several looks at a thing."""
    return F.normalize(F.normalize(embeddings, dim=1).mean(0), dim=0)


def _centres(boxes: Tensor) -> Tensor:
    return (boxes[:, :2] + boxes[:, 2:]) / 2
