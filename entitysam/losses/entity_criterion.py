"""The training losses of a clip (paper section 3.3.3): entity, mask, dice and IoU after one matching per clip."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from entitysam import distributed
from entitysam.losses.dense import DenseTargets, best_iou, dense_cost, dense_losses, entity_at, void_share
from entitysam.losses.matcher import COST_WEIGHTS, entity_cost, match, matching_cost
from entitysam.losses.points import draw_points, most_uncertain_points, sample_masks
from entitysam.ops import point_sample
from entitysam.registry import CRITERIA, ConfigError
from entitysam.structures import Clip, ClipOutput, Targets

LOSS_WEIGHTS = {"entity": 5.0, "mask": 5.0, "dice": 5.0, "iou": 5.0}
FOCAL_ALPHA, FOCAL_GAMMA = 0.5, 2.0


def entity_loss(entity_logits: Tensor, query_index: Tensor, counted: Tensor | None = None) -> Tensor:
    """Focal loss between matched and unmatched queries, plus the cross-entropy of matched queries towards "entity".

    The targets of the focal term are the one-hot code of "entity" for matched queries and zeros for the others. It is
    summed over both logits and all queries and divided by the number of matched queries.

    Args:
        entity_logits: [Q, 2]; index 1 is "entity".
        query_index: int64 [N] matched queries.
        counted: bool [Q] queries that the focal term looks at; all by default.

    Returns:
        Scalar; 0 (with a graph) where nothing is matched.
    """
    logits = entity_logits.float()
    if not len(query_index):
        return 0 * logits.sum()
    labels = torch.zeros_like(logits)  # [Q, 2]; all zero: neither "entity" nor "no entity"
    labels[query_index, 1] = 1
    cross_entropy = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    # 1 - sigmoid(x) = sigmoid(-x), without cancellation for large logits.
    prob_of_label = torch.where(labels > 0, logits.sigmoid(), (-logits).sigmoid())
    alpha = torch.where(labels > 0, FOCAL_ALPHA, 1 - FOCAL_ALPHA)
    terms = alpha * (1 - prob_of_label) ** FOCAL_GAMMA * cross_entropy
    focal = (terms if counted is None else terms[counted]).sum() / len(query_index)
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
    intersection = (predicted & target).sum((-2, -1))  # [N, T]
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
        every_cell: matching and losses on all cells of the mask grid instead of points (`losses.dense`). The keys below
            need it. All are off in the published training.
        ignore_void: unlabelled pixels count in no loss, and queries whose mask is mostly there are no false positives.
        layers: weight of the mask losses of each earlier decoder layer (`entity_decoder.deep_supervision`), which share
            the last layer's matching.
        unmatched_masks: weight of the mask losses of unmatched queries, which learn the mask of the entity under their
            point prompt: many queries per entity learn masks, one learns to be its entity (cf. H-DETR, Jia et al. 2023).
        iou_of_all: the IoU is learnt for every query, with the entity that its mask overlaps most.

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
        every_cell: bool = False,
        ignore_void: bool = False,
        layers: float = 0.0,
        unmatched_masks: float = 0.0,
        iou_of_all: bool = False,
    ) -> None:
        super().__init__()
        self.weights = _complete("criterion.weights", weights, LOSS_WEIGHTS)
        self.costs = _complete("criterion.costs", costs, COST_WEIGHTS)
        self.num_points = num_points
        self.oversample_ratio = oversample_ratio
        self.importance_ratio = importance_ratio
        self.every_cell, self.ignore_void, self.iou_of_all = every_cell, ignore_void, iou_of_all
        self.layers, self.unmatched_masks = layers, unmatched_masks
        if not every_cell and (ignore_void or layers or unmatched_masks or iou_of_all):
            raise ConfigError("criterion: ignore_void, layers, unmatched_masks and iou_of_all need every_cell=true")

    def inputs(self, clips: Sequence[Clip], generators: Sequence[torch.Generator]) -> tuple[Tensor]:
        """Arguments of the network in training: the frames alone.

        Raises:
            ConfigError: several clips at once of different lengths or sizes.
        """
        if len(clips) == 1:
            return (clips[0].frames,)
        if len({clip.frames.shape for clip in clips}) > 1:
            raise ConfigError("train.clips_per_forward: more than 1 needs clips of one length and size")
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
            if self.every_cell:
                losses = self._on_every_cell(output, targets, num_masks)
                losses["total"] = losses["total"] + _connected(output)
                return losses
            queries, order = self.match(output, targets, generator)
            matched, masks = mask_logits[queries], targets.masks[order]
            points = self.loss_points(matched, generator)
            losses = {"entity": entity_loss(output.entity_logits, queries)}
            losses["mask"], losses["dice"] = mask_losses(matched, masks, points, num_masks)
            losses["iou"] = iou_loss(iou[queries], matched, masks)
            total = sum(self.weights[name] * loss for name, loss in losses.items())
            losses["total"] = total + _connected(output)
        return losses

    def _on_every_cell(self, output: ClipOutput, targets: Targets, num_masks: Tensor | float) -> dict[str, Tensor]:
        """The losses of `forward` on the mask grid, with the extensions that are switched on."""
        mask_logits = output.mask_logits.float()
        dense = self._dense_targets(targets, mask_logits.shape[-1])
        queries, order = self._match_cells(output.entity_logits, mask_logits, dense)
        counted = None
        if self.ignore_void:
            # A matched query always counts, also where most of its mask is unlabelled.
            counted = void_share(mask_logits, dense) < 0.5
            counted[queries] = True
        losses = {"entity": entity_loss(output.entity_logits, queries, counted)}
        target = best_iou(mask_logits, dense)  # [Q, T]
        error = (output.iou.float() - target) ** 2
        if self.iou_of_all:
            losses["iou"] = 0.5 * error.mean()
        else:
            overlaps = target[queries] > 0
            losses["iou"] = 0.5 * (error[queries] * overlaps).sum() / overlaps.sum().clamp(min=1)
        pairs = self._unmatched_pairs(output, targets, queries)
        supervised = [(1.0, mask_logits)]
        if self.layers and output.layer_masks is not None:
            supervised += [(self.layers, masks.float()) for masks in output.layer_masks]
        for weight, masks in supervised:
            for name, loss in self._mask_losses(masks, dense, queries, order, pairs, num_masks).items():
                losses[name] = losses.get(name, 0) + weight * loss
        losses["total"] = sum(self.weights[name] * loss for name, loss in losses.items())  # type: ignore[assignment]
        return losses

    def _mask_losses(
        self,
        mask_logits: Tensor,
        dense: DenseTargets,
        queries: Tensor,
        order: Tensor,
        pairs: tuple[Tensor, Tensor, Tensor],
        num_masks: Tensor | float,
    ) -> dict[str, Tensor]:
        """Losses of the matched tubes, and with `unmatched_masks` of (query, frame, entity) pairs beside them."""
        logits = mask_logits.flatten(2)  # [Q, T, P]
        known = dense.known.expand(len(queries), -1, -1)  # [T, P] -> [N, T, P]
        cover = dense.cover[order]  # [N, T, P] in the order of the matched queries
        mask, dice = dense_losses(logits[queries].flatten(0, 1), cover.flatten(0, 1), known.flatten(0, 1))  # [N T] each
        mask, dice = mask.sum() / num_masks, dice.sum() / num_masks
        query, frame, entity = pairs
        if len(query):
            more = dense_losses(logits[query, frame], dense.cover[entity, frame], dense.known[frame])  # [pairs] each
            mask = mask + self.unmatched_masks * more[0].mean()
            dice = dice + self.unmatched_masks * more[1].mean()
        return {"mask": mask, "dice": dice}

    @torch.no_grad()
    def _unmatched_pairs(self, output: ClipOutput, targets: Targets, queries: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(query, frame, entity) of every unmatched query and frame with an entity under the query's point."""
        if not self.unmatched_masks or output.points is None or not len(targets):
            none = queries.new_zeros(0)
            return none, none, none
        under = entity_at(output.points, targets)  # [Q, T]
        under[queries] = -1
        query, frame = (under >= 0).nonzero(as_tuple=True)
        return query, frame, under[query, frame]

    def _dense_targets(self, targets: Targets, size: int) -> DenseTargets:
        return DenseTargets.of(targets, size, self.ignore_void)

    @torch.no_grad()
    def _match_cells(self, entity_logits: Tensor, mask_logits: Tensor, dense: DenseTargets) -> tuple[Tensor, Tensor]:
        mask, dice = dense_cost(mask_logits, dense)
        total = (
            self.costs["mask"] * mask + self.costs["dice"] * dice + self.costs["entity"] * entity_cost(entity_logits)
        )
        return match(total)

    @torch.no_grad()
    def match(
        self, output: ClipOutput, targets: Targets, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Indices (query, target) of the matched pairs, on random points or on all cells."""
        if self.every_cell:
            mask_logits = output.mask_logits.float()
            dense = self._dense_targets(targets, mask_logits.shape[-1])
            return self._match_cells(output.entity_logits, mask_logits, dense)
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


def _connected(output: ClipOutput) -> Tensor:
    """Zero, with a graph to all outputs, so that every worker has a gradient for every trained parameter whatever was matched.

    Empty sums are 0 where an output is infinite, which 0 * output would not be.
    """
    outputs = (output.mask_logits.float(), output.iou.float(), output.entity_logits.float())
    return torch.stack([tensor.flatten()[:0].sum() for tensor in outputs]).sum()


def mean_num_masks(count: int | float, device: torch.device) -> Tensor:
    """The number of target masks averaged over the workers, at least 1. A collective call: every worker has to make it."""
    return distributed.mean(torch.tensor(float(count), device=device)).clamp(min=1)


def _complete(path: str, given: Mapping[str, float], defaults: Mapping[str, float]) -> dict[str, float]:
    for key in given:
        if key not in defaults:
            raise ConfigError(f"{path}.{key}: unknown key; known: {', '.join(defaults)}")
    return {**defaults, **given}
