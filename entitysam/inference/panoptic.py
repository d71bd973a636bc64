"""Soft masks of all entities -> one non-overlapping entity map per frame (class-agnostic panoptic merge).

The decision about an entity needs the whole video, the pixels need not: `PanopticMerge` sees the logits chunk by chunk,
three times, and gives exactly what merging everything at once would give.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Chunks = Callable[[], Iterable[Tensor]]
QUALITY_STRIDE = 5  # the mask quality is measured on every 5th frame


@dataclass(frozen=True)
class Decision:
    """What the whole video decides.

    Attributes:
        queries: int64 [n] the query behind each segment id 1..n.
        weight: [K] of the kept entities' probabilities in the argmax over entities.
        id_of: int32 [K + 1] segment id of background and of each kept entity, 0 = none.
    """

    queries: np.ndarray
    weight: Tensor
    id_of: Tensor


class PanopticMerge:
    """Merging of one video's logits.

    Args:
        scores: [Q] score of each entity over the video.
        out_size: (H, W) of the maps.
        score_threshold: entities below it are dropped.
        max_entities: at most so many of the best are kept.
        overlap_threshold: an entity must own at least this share of its own mask's area over the video.
        mask_threshold: probability from which a pixel belongs to a mask.
    """

    def __init__(
        self,
        scores: Tensor,
        out_size: tuple[int, int],
        score_threshold: float = 0.05,
        max_entities: int = 100,
        overlap_threshold: float = 0.7,
        mask_threshold: float = 0.5,
    ):
        self.scores = scores.detach().float().cpu()
        self.out_size = out_size
        self.overlap_threshold = overlap_threshold
        self.mask_threshold = mask_threshold
        kept = torch.nonzero(self.scores >= score_threshold).flatten()
        if len(kept) > max_entities:
            best = self.scores[kept].topk(max_entities).indices
            kept = kept[best.sort().values]
        self.kept = kept

    def decide(self, chunks: Chunks) -> "Decision":
        """The first two readings: which entities become segments.

        Args:
            chunks: gives, each time it is called, the video's filled logits in order as [Q, t, h, w] tensors.
        """
        if not len(self.kept):
            return Decision(np.zeros(0, np.int64), torch.zeros(0), torch.zeros(1, dtype=torch.int32))
        weight = self.scores[self.kept] + 0.5 * self._quality(chunks())
        owned, area, visible = self._areas(chunks(), weight)
        keep = (owned > 0) & (area > 0) & (visible > 0) & (owned / area.clamp(min=1) >= self.overlap_threshold)
        id_of = torch.zeros(len(keep) + 1, dtype=torch.int32)
        id_of[1:][keep] = torch.arange(1, int(keep.sum()) + 1, dtype=torch.int32)
        return Decision(self.kept[keep].numpy(), weight, id_of)

    def maps(self, chunks: Chunks, decision: "Decision") -> Iterator[np.ndarray]:
        """The third reading: the entity maps, int32 [H, W] one after the other."""
        for logits in chunks():
            if not len(self.kept):
                yield from (np.zeros(self.out_size, np.int32) for _ in range(logits.shape[1]))
                continue
            for owner, masks in self._owners(logits, decision.weight):
                yield decision.id_of[_where_own(owner, masks).cpu()].numpy()

    def dense_maps(self, chunks: Chunks, decision: "Decision", segments: Sequence[int]) -> Iterator[np.ndarray]:
        """Semantic reading: every pixel goes to the segment that claims it most, whatever its probability.

        Args:
            chunks: see `decide`.
            decision: of `decide`.
            segments: ids that take part.

        Yields:
            int32 [H, W] ids out of `segments`; 0 everywhere if there are none.
        """
        takes_part = torch.isin(decision.id_of[1:], torch.tensor(list(segments), dtype=torch.int32))
        rows = torch.nonzero(takes_part).flatten()
        for logits in chunks():
            if not len(rows):
                yield from (np.zeros(self.out_size, np.int32) for _ in range(logits.shape[1]))
                continue
            weight = decision.weight[rows].to(logits.device)[:, None, None]
            for frame in logits[self.kept[rows].to(logits.device)].unbind(1):
                large = F.interpolate(frame[None].float(), size=self.out_size, mode="bilinear", align_corners=False)[0]
                owner = (weight * large.sigmoid_()).argmax(0)
                yield decision.id_of[1:][rows][owner.cpu()].numpy()

    def _quality(self, chunks: Iterable[Tensor]) -> Tensor:
        """[K] share of confident pixels: (# logits > 1) / (# logits > -1, at least 1) on every 5th frame."""
        sure = torch.zeros(len(self.kept), dtype=torch.int64)
        likely = torch.zeros_like(sure)
        frame = 0
        for logits in chunks:
            first = -frame % QUALITY_STRIDE
            sampled = logits[self.kept.to(logits.device), first::QUALITY_STRIDE]
            sure += (sampled > 1).sum((1, 2, 3)).cpu()
            likely += (sampled > -1).sum((1, 2, 3)).cpu()
            frame += logits.shape[1]
        return sure.float() / likely.clamp(min=1).float()

    def _owners(self, logits: Tensor, weight: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Per frame: the owner of each pixel as index into `kept` + 1 (0 = background), [H, W]; and the masks, [K, H, W]."""
        weight = weight.to(logits.device)[:, None, None]
        for frame in logits[self.kept.to(logits.device)].unbind(1):
            large = F.interpolate(frame[None].float(), size=self.out_size, mode="bilinear", align_corners=False)[0]
            probability = large.sigmoid_()
            masks = probability >= self.mask_threshold
            owner = (weight * probability).argmax(0) + 1
            owner[~masks.any(0)] = 0
            yield owner, masks

    def _areas(self, chunks: Iterable[Tensor], weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Over the video, [K] each: pixels owned, pixels of the mask, pixels that are both."""
        totals = torch.zeros(3, len(self.kept), dtype=torch.int64)
        for logits in chunks:
            for owner, masks in self._owners(logits, weight):
                totals[0] += torch.bincount(owner.flatten(), minlength=len(masks) + 1)[1:].cpu()
                totals[1] += masks.sum((1, 2)).cpu()
                totals[2] += torch.bincount(_where_own(owner, masks).flatten(), minlength=len(masks) + 1)[1:].cpu()
        return totals[0], totals[1], totals[2]


def _where_own(owner: Tensor, masks: Tensor) -> Tensor:
    """The owner map with background wherever the owner's own probability is below the threshold."""
    own = masks.gather(0, (owner - 1).clamp(min=0)[None])[0]
    return owner * own


def merge(
    mask_logits: Tensor, scores: Tensor, out_size: tuple[int, int], **settings: float
) -> tuple[np.ndarray, np.ndarray]:
    """Merges a whole video at once.

    Args:
        mask_logits: [Q, T, h, w], holes filled.
        scores: [Q].
        out_size: (H, W).
        settings: thresholds of `PanopticMerge`.

    Returns:
        ids int32 [T, H, W], 0 = no entity; and the query behind id 1..n, int64 [n].
    """
    panoptic = PanopticMerge(scores, out_size, **settings)  # type: ignore[arg-type]
    decision = panoptic.decide(lambda: [mask_logits])
    return np.stack(list(panoptic.maps(lambda: [mask_logits], decision))), decision.queries
