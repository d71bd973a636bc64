"""Bipartite matching of queries and targets on tube masks (paper section 3.3.3; cost of Mask2Former)."""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from entitysam.losses.points import sample_masks
from entitysam.ops import point_sample

COST_WEIGHTS = {"mask": 5.0, "dice": 5.0, "entity": 3.0}
ENTITY_SHARPNESS = 5.0  # the class cost is a softmax over 5 * sigmoid(logits), not over the logits


def matching_cost(
    entity_logits: Tensor,
    mask_logits: Tensor,
    target_masks: Tensor,
    points: Tensor,
    weights: Mapping[str, float] = COST_WEIGHTS,
) -> dict[str, Tensor]:
    """Cost of assigning target n to query q, on points shared by all masks and frames.

    Both mask terms are matrix products of [Q, T * P] and [T * P, N]; no tensor of size Q x N x T x P is needed.

    Args:
        entity_logits: [Q, 2]; index 1 is "entity".
        mask_logits: [Q, T, h, w].
        target_masks: bool or uint8 [N, T, H, W].
        points: [P, 2] as (x, y) in [0, 1] of the frame.
        weights: factor of each term in `total`.

    Returns:
        float32 [Q, N] each: `mask` (binary cross-entropy, mean over points), `dice`, `entity` and weighted `total`.
    """
    with torch.autocast(mask_logits.device.type, enabled=False):
        # All masks and frames are channels of one map that is sampled at the same points: [1, Q * T, P] -> [Q, T * P].
        logits = point_sample(mask_logits.float().flatten(0, 1)[None], points[None]).view(len(mask_logits), -1)
        targets = sample_masks(target_masks.flatten(0, 1)[None], points[None]).view(len(target_masks), logits.shape[1])
        # bce(x, t) = softplus(x) - x t
        mask = (F.softplus(logits).sum(1, keepdim=True) - logits @ targets.T) / logits.shape[1]
        probs = logits.sigmoid()  # [Q, T P]
        dice = 1 - (2 * probs @ targets.T + 1) / (probs.sum(1)[:, None] + targets.sum(1)[None] + 1)
        entity = entity_cost(entity_logits).expand_as(mask)  # [Q, 1] -> [Q, N]
        total = weights["mask"] * mask + weights["dice"] * dice + weights["entity"] * entity
    return {"mask": mask, "dice": dice, "entity": entity, "total": total}


def entity_cost(entity_logits: Tensor) -> Tensor:
    """Cost [Q, 1] of giving any target to a query: minus its probability of being an entity; entity_logits: [Q, 2]."""
    return -(ENTITY_SHARPNESS * entity_logits.float().sigmoid()).softmax(-1)[:, 1:]


def match(cost: Tensor) -> tuple[Tensor, Tensor]:
    """Hungarian assignment of min(Q, N) pairs with the lowest total cost.

    Non-finite costs are replaced by a high cost of 1e6, so that such a query is matched last. Where it is matched
    nevertheless, the loss is not finite and the trainer stops with the names of the images.

    Args:
        cost: [Q, N].

    Returns:
        int64 (query_index, target_index) of equal length on the device of `cost`, sorted by query.
    """
    matrix = np.nan_to_num(cost.detach().cpu().numpy(), nan=1e6, posinf=1e6, neginf=-1e6)
    queries, targets = linear_sum_assignment(matrix)
    return torch.as_tensor(queries, device=cost.device), torch.as_tensor(targets, device=cost.device)
