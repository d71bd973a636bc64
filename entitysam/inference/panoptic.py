"""Class-agnostic panoptic merge: soft masks of all entities -> one entity map without overlaps per frame.

Which entities are kept depends on the whole video, the pixels of a frame on this frame alone. `PanopticMerge` reads the
logits three times in chunks of frames; the result does not depend on the chunks.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Chunks = Callable[[], Iterable[Tensor]]
NOWHERE = -10.0  # a mask logit that never wins a pixel from an entity with a mask there
QUALITY_STRIDE = 5  # the mask quality is measured on every 5th frame


@dataclass(frozen=True)
class Decision:
    """The part of the merge that depends on the whole video. K entities pass the score threshold, n become segments.

    Attributes:
        queries: int64 [n] the query behind each segment id 1..n.
        weight: [K] factor of an entity's probabilities in the argmax over entities.
        id_of: int32 [K + 1] segment id of the background and of each of the K entities, 0 = none.
    """

    queries: np.ndarray
    weight: Tensor
    id_of: Tensor


class PanopticMerge:
    """Merges the logits of one video.

    Args:
        scores: [Q] score of each entity over the video.
        out_size: (H, W) of the maps.
        score_threshold: entities below it are dropped.
        max_entities: at most so many are kept, those with the best scores.
        overlap_threshold: over the video, an entity must own at least this share of the area of its mask.
        mask_threshold: probability from which a pixel belongs to a mask.
        skip_absent: leave entities with all logits below `NOWHERE` out of a frame, which changes no map; faster where most are
            absent from most frames.
    """

    def __init__(
        self,
        scores: Tensor,
        out_size: tuple[int, int],
        score_threshold: float = 0.05,
        max_entities: int = 100,
        overlap_threshold: float = 0.7,
        mask_threshold: float = 0.5,
        skip_absent: bool = False,
    ):
        self.skip_absent = skip_absent
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
        """The first two readings: which entities become segments (spec section 2).

        Args:
            chunks: each call iterates the filled logits of the video in order, as [Q, t, h, w] tensors.
        """
        if not len(self.kept):
            return Decision(np.zeros(0, np.int64), torch.zeros(0), torch.zeros(1, dtype=torch.int32))
        weight = self.scores[self.kept] + 0.5 * self._quality(chunks())  # [K]
        owned, area, visible = self._areas(chunks(), weight)
        keep = (owned > 0) & (area > 0) & (visible > 0) & (owned / area.clamp(min=1) >= self.overlap_threshold)
        id_of = torch.zeros(len(keep) + 1, dtype=torch.int32)  # index 0 is the background
        id_of[1:][keep] = torch.arange(1, int(keep.sum()) + 1, dtype=torch.int32)
        return Decision(self.kept[keep].numpy(), weight, id_of)

    def maps(self, chunks: Chunks, decision: "Decision") -> Iterator[np.ndarray]:
        """The third reading: yields the entity maps, int32 [H, W], in order."""
        for logits in chunks():
            if not len(self.kept):
                yield from (np.zeros(self.out_size, np.int32) for _ in range(logits.shape[1]))
                continue
            for owner, masks, rows in self._owners(logits, decision.weight):
                id_of = torch.cat([decision.id_of[:1], decision.id_of[1:][rows]])
                yield id_of[_where_own(owner, masks).cpu()].numpy()

    def dense_maps(self, chunks: Chunks, decision: "Decision", segments: Sequence[int]) -> Iterator[np.ndarray]:
        """Maps for semantic segmentation: every pixel belongs to the most probable segment, however improbable.

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
            for frame in logits[self.kept[rows].to(logits.device)].unbind(1):  # [n, h, w]
                large = F.interpolate(frame[None].float(), size=self.out_size, mode="bilinear", align_corners=False)[0]
                owner = (weight * large.sigmoid_()).argmax(0)
                yield decision.id_of[1:][rows][owner.cpu()].numpy()

    def _quality(self, chunks: Iterable[Tensor]) -> Tensor:
        """[K] share of confident pixels: (# logits > 1) / (# logits > -1, at least 1) on every 5th frame."""
        sure = torch.zeros(len(self.kept), dtype=torch.int64)
        likely = torch.zeros_like(sure)
        frame = 0
        for logits in chunks:
            first = (
                -frame % QUALITY_STRIDE
            )  # of this chunk's frames, the first whose number is a multiple of the stride
            sampled = logits[self.kept.to(logits.device), first::QUALITY_STRIDE]
            sure += (sampled > 1).sum((1, 2, 3)).cpu()
            likely += (sampled > -1).sum((1, 2, 3)).cpu()
            frame += logits.shape[1]
        return sure.float() / likely.clamp(min=1).float()

    def _owners(self, logits: Tensor, weight: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yields per frame the owner of each pixel [H, W], an index into the masks + 1 (0 = background), the masks
        [n, H, W], and their indices into `kept` [n]."""
        for frame in logits[self.kept.to(logits.device)].unbind(1):
            rows = torch.arange(len(frame))
            if self.skip_absent:
                rows = torch.nonzero((frame > NOWHERE).flatten(1).any(1)).flatten().cpu()
                rows = rows if len(rows) else torch.zeros(1, dtype=torch.int64)  # one that owns nothing
                frame = frame[rows.to(frame.device)]
            large = F.interpolate(frame[None].float(), size=self.out_size, mode="bilinear", align_corners=False)[0]
            probability = large.sigmoid_()  # [n, H, W]
            masks = probability >= self.mask_threshold
            owner = (weight[rows].to(logits.device)[:, None, None] * probability).argmax(0) + 1  # [H, W]
            owner[~masks.any(0)] = 0  # no mask reaches the pixel: background
            yield owner, masks, rows

    def _areas(self, chunks: Iterable[Tensor], weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Counts over the video, [K] each: pixels owned, pixels of the mask, pixels of both."""
        totals = torch.zeros(3, len(self.kept), dtype=torch.int64)
        for logits in chunks:
            for owner, masks, rows in self._owners(logits, weight):
                totals[0, rows] += torch.bincount(owner.flatten(), minlength=len(masks) + 1)[1:].cpu()
                totals[1, rows] += masks.sum((1, 2)).cpu()
                totals[2, rows] += torch.bincount(_where_own(owner, masks).flatten(), minlength=len(masks) + 1)[
                    1:
                ].cpu()
        return totals[0], totals[1], totals[2]


def _where_own(owner: Tensor, masks: Tensor) -> Tensor:
    """The owner map with background wherever the owner's own probability is below the threshold."""
    own = masks.gather(0, (owner - 1).clamp(min=0)[None])[0]  # [H, W], the mask of each pixel's owner there
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
        ids int32 [T, H, W] with 0 = no entity, and int64 [n] the query behind each id 1..n.
    """
    panoptic = PanopticMerge(scores, out_size, **settings)  # type: ignore[arg-type]
    decision = panoptic.decide(lambda: [mask_logits])
    return np.stack(list(panoptic.maps(lambda: [mask_logits], decision))), decision.queries
