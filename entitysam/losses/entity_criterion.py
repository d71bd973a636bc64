"""The training losses of a clip (paper section 3.3.3): entity, mask, dice and IoU after one matching per clip."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from entitysam import distributed
from entitysam.losses.matcher import COST_WEIGHTS, match, matching_cost
from entitysam.losses.points import draw_points, most_uncertain_points, sample_masks
from entitysam.ops import point_sample
from entitysam.registry import CRITERIA, ConfigError
from entitysam.structures import Clip, ClipOutput, Targets

LOSS_WEIGHTS = {"entity": 5.0, "mask": 5.0, "dice": 5.0, "iou": 5.0}
FOCAL_ALPHA, FOCAL_GAMMA = 0.5, 2.0


def entity_loss(entity_logits: Tensor, query_index: Tensor) -> Tensor:
    """Focal loss between matched and unmatched queries, plus the cross-entropy of matched queries towards "entity".

    The targets of the focal term are the one-hot code of "entity" for matched queries and zeros for the others. It is
    summed over both logits and all queries and divided by the number of matched queries.

    Args:
        entity_logits: [Q, 2]; index 1 is "entity".
        query_index: int64 [N] matched queries.

    Returns:
        Scalar; 0 (with a graph) where nothing is matched.
    """
    logits = entity_logits.float()
    if not len(query_index):
        return 0 * logits.sum()
    labels = torch.zeros_like(logits)
    labels[query_index, 1] = 1
    cross_entropy = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    prob_of_label = torch.where(labels > 0, logits.sigmoid(), (-logits).sigmoid())
    alpha = torch.where(labels > 0, FOCAL_ALPHA, 1 - FOCAL_ALPHA)
    focal = (alpha * (1 - prob_of_label) ** FOCAL_GAMMA * cross_entropy).sum() / len(query_index)
    return focal + F.cross_entropy(logits[query_index], torch.ones_like(query_index))


def mask_losses(
    mask_logits: Tensor, target_masks: Tensor, points: Tensor, num_masks: Tensor | float
) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy and dice of matched masks on given points.

    Args:
        mask_logits: [N, T, h, w] of the matched queries, in the order of the targets.
        target_masks: bool or uint8 [N, T, H, W].
        points: [N * T, P, 2] as (x, y) in [0, 1], of each mask on each frame.
        num_masks: what the sums over masks and frames are divided by.

    Returns:
        Two scalars (cross-entropy, dice); 0 (with a graph) where N = 0.
    """
    if not len(target_masks):
        return 0 * mask_logits.float().sum(), 0 * mask_logits.float().sum()
    logits = point_sample(mask_logits.float().flatten(0, 1)[:, None], points)[:, 0]  # [N * T, P]
    targets = sample_masks(target_masks.flatten(0, 1)[:, None], points)[:, 0]  # [N * T, P]
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1).sum()
    probs = logits.sigmoid()
    dice = 1 - (2 * (probs * targets).sum(1) + 1) / (probs.sum(1) + targets.sum(1) + 1)
    return cross_entropy / num_masks, dice.sum() / num_masks


@torch.no_grad()
def target_iou(mask_logits: Tensor, target_masks: Tensor) -> Tensor:
    """IoU [N, T] of predictions [N, T, h, w] > 0 with targets [N, T, H, W] at h x w (nearest); 0 where both are empty."""
    target = F.interpolate(target_masks.to(torch.uint8), size=mask_logits.shape[-2:], mode="nearest").bool()
    predicted = mask_logits > 0
    intersection = (predicted & target).sum((-2, -1))
    return intersection / (predicted | target).sum((-2, -1)).clamp(min=1)


def iou_loss(pred_iou: Tensor, mask_logits: Tensor, target_masks: Tensor) -> Tensor:
    """Squared error of the predicted IoU, halved, over the frames where prediction and target overlap at all.

    Args:
        pred_iou: [N, T] in 0..1.
        mask_logits: [N, T, h, w] of the same queries; no gradient flows to them.
        target_masks: bool or uint8 [N, T, H, W].

    Returns:
        Scalar; 0 (with a graph) where no frame overlaps.
    """
    target = target_iou(mask_logits, target_masks)
    error = torch.where(target > 0, (pred_iou.float() - target) ** 2, 0.0)
    return 0.5 * error.sum() / (target > 0).sum().clamp(min=1)


@CRITERIA.register("entity")
class EntityCriterion(nn.Module):
    """Matches queries to targets once per clip and sums the four losses, in float32 whatever the autocast.

    Args:
        weights: factor of each loss in the total: entity, mask, dice, iou.
        costs: factor of each matching cost: mask, dice, entity.
        num_points: points per frame for matching and per mask and frame for the losses.
        oversample_ratio: candidates drawn per point of the losses.
        importance_ratio: share of the points that are the most uncertain candidates; the rest are uniform (PointRend).

    Raises:
        ConfigError: a weight or cost of an unknown name.
    """

    def __init__(
        self,
        weights: Mapping[str, float] = LOSS_WEIGHTS,
        costs: Mapping[str, float] = COST_WEIGHTS,
        num_points: int = 12544,
        oversample_ratio: float = 3.0,
        importance_ratio: float = 0.5,
    ) -> None:
        super().__init__()
        self.weights = _complete("criterion.weights", weights, LOSS_WEIGHTS)
        self.costs = _complete("criterion.costs", costs, COST_WEIGHTS)
        self.num_points = num_points
        self.oversample_ratio = oversample_ratio
        self.importance_ratio = importance_ratio

    def inputs(self, clips: Sequence[Clip], generators: Sequence[torch.Generator]) -> tuple[Tensor]:
        """Arguments of the network in training: the frames alone.

        Raises:
            ConfigError: several clips at once that have more than one frame.
        """
        if len(clips) == 1:
            return (clips[0].frames,)
        if any(len(clip.frames) > 1 for clip in clips):
            raise ConfigError("train.clips_per_forward: more than 1 needs clips of one frame, data.mapper.num_frames=1")
        return (torch.stack([clip.frames for clip in clips]),)

    def forward(
        self,
        output: ClipOutput,
        targets: Targets,
        generator: torch.Generator | None = None,
        num_masks: Tensor | float | None = None,
    ) -> dict[str, Tensor]:
        """Losses of one clip.

        Args:
            output: of the network.
            targets: the entities of the clip, on the device of `output`.
            generator: source of the random points.
            num_masks: normaliser of the mask losses; by default targets * frames averaged over the workers. With gradient
                accumulation, the average over all clips of the step.

        Returns:
            Unweighted scalars `entity`, `mask`, `dice`, `iou` and the weighted `total`; all 0, with a graph to every
            output, for a clip without targets. An infinite or NaN logit of an unmatched query leaves them finite.
        """
        with torch.autocast(output.mask_logits.device.type, enabled=False):
            mask_logits, iou = output.mask_logits.float(), output.iou.float()
            if num_masks is None:
                num_masks = mean_num_masks(len(targets) * mask_logits.shape[1], mask_logits.device)
            queries, order = self.match(output, targets, generator)
            matched, masks = mask_logits[queries], targets.masks[order]
            points = self.loss_points(matched, generator)
            losses = {"entity": entity_loss(output.entity_logits, queries)}
            losses["mask"], losses["dice"] = mask_losses(matched, masks, points, num_masks)
            losses["iou"] = iou_loss(iou[queries], matched, masks)
            total = sum(self.weights[name] * loss for name, loss in losses.items())
            # Empty sums connect all outputs to the loss, so that every worker has a gradient for every trained parameter
            # whatever was matched. They are 0 where an output is infinite, which 0 * output would not be.
            outputs = (mask_logits, iou, output.entity_logits.float())
            losses["total"] = total + sum(tensor.flatten()[:0].sum() for tensor in outputs)
        return losses

    @torch.no_grad()
    def match(
        self, output: ClipOutput, targets: Targets, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Indices (query, target) of the matched pairs, on random points."""
        points = draw_points((self.num_points,), output.mask_logits.device, generator)
        cost = matching_cost(output.entity_logits, output.mask_logits, targets.masks, points, self.costs)
        return match(cost["total"])

    @torch.no_grad()
    def loss_points(self, mask_logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Points [N * T, num_points, 2] for masks [N, T, h, w]: the most uncertain of many candidates, then uniform ones."""
        flat = mask_logits.flatten(0, 1)  # [N * T, h, w]
        uncertain = int(self.importance_ratio * self.num_points)
        candidates = draw_points((len(flat), int(self.oversample_ratio * self.num_points)), flat.device, generator)
        uniform = draw_points((len(flat), self.num_points - uncertain), flat.device, generator)
        return torch.cat([most_uncertain_points(flat, candidates, uncertain), uniform], dim=1)


def mean_num_masks(count: int | float, device: torch.device) -> Tensor:
    """The number of target masks averaged over the workers, at least 1. A collective call: every worker has to make it."""
    return distributed.mean(torch.tensor(float(count), device=device)).clamp(min=1)


def _complete(path: str, given: Mapping[str, float], defaults: Mapping[str, float]) -> dict[str, float]:
    for key in given:
        if key not in defaults:
            raise ConfigError(f"{path}.{key}: unknown key; known: {', '.join(defaults)}")
    return {**defaults, **given}
