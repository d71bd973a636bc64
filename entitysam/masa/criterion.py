"""MASA's training losses: contrastive and margin loss on embeddings of two views, and detection losses (distillation)."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from entitysam.masa.detection_head import LOSSES
from entitysam.registry import CRITERIA, ConfigError
from entitysam.structures import BoxTargets, Clip, PairOutput

WEIGHTS = {"contrastive": 0.25, "margin": 1.0, **dict.fromkeys(LOSSES, 1.0)}


def contrastive_loss(similarity: Tensor, positive: Tensor) -> Tensor:
    """Unbiased multi-positive contrastive loss over dot products.

    For a key k with positives P and negatives N: the mean over p in P of
    log(mean over p' in P of exp(k.p') + sum over n in N of exp(k.n)) - k.p; with one positive that is
    log(1 + sum exp(k.n - k.p)). The mean over keys that have a positive.

    Args:
        similarity: [K, R] dot products.
        positive: bool [K, R].

    Returns:
        Scalar; 0 (attached to the graph) if no key has a positive.
    """
    count = positive.sum(1)
    has_positive = count > 0  # [K]
    if not has_positive.any():
        return 0 * similarity.float().sum()
    logits, positive, count = similarity[has_positive].float(), positive[has_positive], count[has_positive].float()
    # log of the mean over positives plus the sum over negatives: positives are divided by their number.
    shared = logits - torch.where(positive, count.log()[:, None], 0)
    mean_positive = torch.where(positive, logits, 0).sum(1) / count
    return (shared.logsumexp(1) - mean_positive).mean()


def margin_loss(cosine: Tensor, positive: Tensor, margin: float = 0.1, negatives_per_positive: int = 3) -> Tensor:
    """Squared loss on cosine similarities clamped to 0..1: (1 - cos)^2 for positives, (cos - margin)^2 for negatives.

    Only the hardest negatives count, `negatives_per_positive` per positive.

    Args:
        cosine: [K, R] in -1..1.
        positive: bool [K, R].

    Returns:
        Scalar mean over the pairs that count; 0 (attached to the graph) if there is no positive.
    """
    if not positive.any():
        return 0 * cosine.float().sum()
    attracted = (1 - cosine[positive].float().clamp(0, 1)) ** 2  # [number of positives]
    repelled = (cosine[~positive].float() - margin).clamp(0, 1) ** 2
    hardest = repelled.topk(min(len(repelled), negatives_per_positive * len(attracted))).values
    return torch.cat([attracted, hardest]).mean()


@CRITERIA.register("masa")
class MasaCriterion(nn.Module):
    """Weighted sum of the contrastive, the margin, and the detection losses.

    Args:
        weights: loss name -> weight; the others keep their published weight.
        margin, negatives_per_positive: see `margin_loss`.

    Raises:
        ConfigError: unknown loss.
    """

    def __init__(
        self, weights: Mapping[str, float] | None = None, margin: float = 0.1, negatives_per_positive: int = 3
    ) -> None:
        super().__init__()
        for name in weights or {}:
            if name not in WEIGHTS:
                raise ConfigError(f"criterion.weights.{name}: unknown loss; there are {', '.join(WEIGHTS)}")
        self.weights = {**WEIGHTS, **(weights or {})}
        self.margin, self.negatives_per_positive = margin, negatives_per_positive

    def inputs(
        self, clips: Sequence[Clip], generators: Sequence[torch.Generator]
    ) -> tuple[Tensor, BoxTargets, torch.Generator]:
        """Arguments of the network's forward pass in training, which includes the target boxes.

        Raises:
            ConfigError: more than one clip.
        """
        if len(clips) != 1:
            raise ConfigError("train.clips_per_forward: MASA takes one pair of views at a time, so 1")
        return clips[0].frames, clips[0].targets, generators[0]

    def forward(
        self, output: PairOutput, targets: BoxTargets, generator: torch.Generator, num_masks: Tensor | float
    ) -> dict[str, Tensor]:
        """Losses of one pair of views by name, and "total". Only `output` is used: it contains the matched instances."""
        key, reference = output.key.float(), output.reference.float()
        positive = output.key_instances[:, None] == output.reference_instances  # [K, R]
        cosine = F.normalize(key, dim=1) @ F.normalize(reference, dim=1).T  # [K, R]
        losses = {
            "contrastive": contrastive_loss(key @ reference.T, positive),
            "margin": margin_loss(cosine, positive, self.margin, self.negatives_per_positive),
            **output.detection,
        }
        return {"total": sum(self.weights[name] * loss for name, loss in losses.items()), **losses}  # type: ignore[dict-item]
