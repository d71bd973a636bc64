"""Similarity of masks from the image encoder's features at superpixel centroids (E-SAM, section 3.3, Eq. 7)."""

import torch
from torch import Tensor

from entitysam.esam.superpixels import Superpixels
from entitysam.ops import point_sample


def mask_similarity(labels: Tensor, count: int, superpixels: Superpixels, features: Tensor, k: int) -> Tensor:
    """S_M of Eq. (7): S_M(i, j) = mean over the centroids in mask i of the number of their k most similar centroids in mask j.

    Args:
        labels: int64 [h, w] disjoint masks on the grid, 0 = none, i + 1 = mask i.
        count: number of masks.
        features: [C, fh, fw] covering the image.
        k: neighbours per centroid, without itself.

    Returns:
        float32 [count, count]; rows of masks without a centroid are 0.
    """
    size = torch.tensor([labels.shape[1], labels.shape[0]], device=labels.device)
    at_centroids = point_sample(features[None].float(), (superpixels.centroids / size)[None])[0].T  # [K, C]
    x, y = superpixels.centroids.long().T
    mask_of = labels[y.clamp(max=labels.shape[0] - 1), x.clamp(max=labels.shape[1] - 1)]  # [K] mask at each centroid
    nearest = most_similar(at_centroids, k)  # [K, k]
    pairs = mask_of[:, None] * (count + 1) + mask_of[nearest]  # [K, k] index into the table of votes
    # One count per (mask, mask of the neighbour); row and column 0 are free cells.
    votes = torch.bincount(pairs.flatten(), minlength=(count + 1) ** 2).view(count + 1, count + 1)[1:, 1:]
    centroids = torch.bincount(mask_of, minlength=count + 1)[1:]
    return votes.float() / centroids.clamp(min=1)[:, None]


def most_similar(vectors: Tensor, k: int) -> Tensor:
    """Indices of the min(k, K - 1) others of highest cosine similarity to each of K vectors [K, C]: int64 [K, .]."""
    unit = torch.nn.functional.normalize(vectors, dim=1)
    cosine = unit @ unit.T
    cosine.fill_diagonal_(-torch.inf)  # no superpixel is its own neighbour
    return cosine.topk(min(k, len(vectors) - 1), dim=1).indices


def adjacent_pairs(labels: Tensor, count: int) -> Tensor:
    """Pairs of adjacent masks of a label map; a gap of one free cell is allowed (ours).

    Args:
        labels: int64 [h, w], 0 = none, i + 1 = mask i.

    Returns:
        bool [count, count], upper triangle.
    """
    touching = torch.zeros(count + 1, count + 1, dtype=torch.bool, device=labels.device)
    for step in (1, 2):  # 2: across one free cell
        for a, b in ((labels[step:], labels[:-step]), (labels[:, step:], labels[:, :-step])):
            differ = a != b
            touching[torch.minimum(a, b)[differ], torch.maximum(a, b)[differ]] = True
    return touching[1:, 1:]
