"""Similarity of candidates and tracks (MASA's supplement, J.4, Eq. 1). Pure functions of tensors: N candidates, M tracks."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import box_iou


def bidirectional_softmax(dots: Tensor, normaliser: Tensor | None = None) -> Tensor:
    """s_1 of Eq. 1: mean of the softmax over the tracks and the softmax over the candidates.

    Args:
        dots: [N, M] dot products of the embeddings.
        normaliser: [M] log of the sum of exp(dots) over all candidates, if `dots` are the rows of only some of them.

    Returns:
        [N, M] in 0..1.
    """
    over_candidates = dots.softmax(0) if normaliser is None else (dots - normaliser).exp()  # [N, M]
    return (over_candidates + dots.softmax(1)) / 2


def log_sum_over_candidates(parts: Sequence[Tensor], tracks: Tensor) -> Tensor:
    """[M] log of the sum of exp(dot product) over the candidates, given in parts [n, C]; `tracks`: [M, C]."""
    return torch.stack([(part @ tracks.T).logsumexp(0) for part in parts]).logsumexp(0)


def cosine(dots: Tensor, candidates: Tensor, tracks: Tensor) -> Tensor:
    """s_2 of Eq. 1: cosine similarity [N, M] in -1..1; 0 for embeddings of length 0.

    Args:
        dots: [N, M] dot products of the embeddings.
        candidates, tracks: embeddings [N, C], [M, C].
    """
    lengths = candidates.norm(dim=1)[:, None] * tracks.norm(dim=1)  # [N, M]
    return dots / lengths.clamp(min=torch.finfo(dots.dtype).tiny)


def appearance(
    candidates: Tensor, tracks: Tensor, with_cosine: bool = True, normaliser: Tensor | None = None
) -> Tensor:
    """s of Eq. 1, [N, M].

    Args:
        candidates, tracks: embeddings [N, C], [M, C].
        with_cosine: True: mean of s_1 and s_2; False: s_1.
        normaliser: see `bidirectional_softmax`.
    """
    dots = candidates @ tracks.T  # [N, M]
    soft = bidirectional_softmax(dots, normaliser)  # [N, M]
    return (soft + cosine(dots, candidates, tracks)) / 2 if with_cosine else soft


def overlap(candidates: Tensor, tracks: Tensor) -> Tensor:
    """IoU [N, M] of boxes [N, 4] and [M, 4] (x1, y1, x2, y2) with positive area."""
    return box_iou(candidates, tracks)


def centre_distance(candidates: Tensor, tracks: Tensor) -> Tensor:
    """Distance [N, M] between the centres of boxes [N, 4] and [M, 4] (x1, y1, x2, y2), in the unit of the boxes."""
    return torch.cdist(_centres(candidates), _centres(tracks))


def _centres(boxes: Tensor) -> Tensor:
    return (boxes[:, :2] + boxes[:, 2:]) / 2
