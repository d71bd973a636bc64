"""Entities as layers of SAM masks that can be rendered at any resolution; the data structure between E-SAM's modules.

The modules work on the mask grid, the result has the resolution of the image. Mask logits and pairwise precedence are
kept instead of a label map of the grid, so that rendered borders follow SAM's interpolated logits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from entitysam.esam.bitmasks import MaskSet, boxes, pack_above
from entitysam.esam.interpolation import resample

STRIP_PIXELS = 1 << 23  # pixels that are rendered at once; bounds temporary tensors to about 100 MB


@dataclass
class EntityLayers:
    """M masks, rendered in order, that form E disjoint entities.

    Attributes:
        logits: half [M, h, w].
        beats: bool [M + 1, M + 1]; `beats[q + 1, p + 1]`: mask q takes the pixels that it shares with the earlier mask p;
            `beats[q + 1, 0]`: it takes free pixels.
        entity: int64 [M] entity of each mask, 0..E-1.
        scores: float [E] in 0..1.
    """

    logits: Tensor
    beats: Tensor
    entity: Tensor
    scores: Tensor

    def __len__(self) -> int:
        """Number of entities, including those without pixels."""
        return len(self.scores)

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the mask grid."""
        return self.logits.shape[1], self.logits.shape[2]

    def grid_labels(self) -> Tensor:
        """The entity map on the mask grid: int64 [h, w], 0 = none, e + 1 = entity e."""
        return self.render(*self.size)

    def render(self, height: int, width: int) -> Tensor:
        """The entity map: int64 [height, width], 0 = none, e + 1 = entity e."""
        layers = torch.zeros(height, width, dtype=torch.int32, device=self.logits.device)  # layer number + 1
        found = boxes(pack_above(self.logits, 0.0), self.size[1]).tolist()
        rows = max(1, STRIP_PIXELS // width)
        for top in range(0, height, rows):
            self._draw_strip(layers[top : top + rows], top, height, found)
        entity_of = torch.cat([self.entity.new_zeros(1), self.entity + 1])  # layer number + 1 -> entity number + 1
        return entity_of[layers]

    def _draw_strip(self, strip: Tensor, top: int, height: int, found: list[list[int]]) -> None:
        """Renders the image rows from `top` into `strip`, int32 [rows, width], as layer number + 1."""
        h, w = self.size
        for number, (x0, y0, x1, y1) in enumerate(found):
            first, last = _covered(y0, y1, h, height)
            first, last = max(first, top), min(last, top + len(strip))
            left, right = _covered(x0, x1, w, strip.shape[1])
            if first >= last or x0 == x1:
                continue
            grid = self.logits[number].float().clamp(-1e4, 1e4)  # half-precision logits may be infinite
            # Only the window of the mask is resampled, not the whole strip.
            values = resample(grid, (first, last), (left, right), h / height, w / strip.shape[1])
            window = strip[first - top : last - top, left:right]
            window.masked_fill_((values > 0) & self.beats[number + 1][window], number + 1)


def stack_masks(masks: MaskSet, beats: Tensor | None = None) -> EntityLayers:
    """Layers of masks sorted by descending score, one entity each; without `beats` masks with higher scores take precedence.

    Raises:
        ValueError: the masks have no logits.
    """
    if masks.logits is None:
        raise ValueError("masks without logits cannot be rendered")
    count = len(masks)
    if beats is None:
        beats = over_free(count, masks.words.device)
    return EntityLayers(masks.logits, beats, torch.arange(count, device=beats.device), masks.scores)


def over_free(count: int, device: torch.device) -> Tensor:
    """`beats` of masks that take only free pixels: bool [count + 1, count + 1]."""
    beats = torch.zeros(count + 1, count + 1, dtype=torch.bool, device=device)
    beats[:, 0] = True
    return beats


def add_layers(layers: EntityLayers, logits: Tensor, entities: Sequence[int], scores: Tensor) -> EntityLayers:
    """Adds masks below all others: they take only free pixels.

    Args:
        logits: half [n, h, w].
        entities: entity of each mask; numbers from `len(layers)` on are new entities.
        scores: float [new] scores of the new entities.
    """
    old = len(layers.beats)
    beats = over_free(old - 1 + len(logits), layers.beats.device)
    beats[:old, :old] = layers.beats
    entity = torch.tensor(list(entities), dtype=torch.int64, device=layers.entity.device)
    return EntityLayers(
        torch.cat([layers.logits, logits]),
        beats,
        torch.cat([layers.entity, entity]),
        torch.cat([layers.scores, scores.to(layers.scores)]),
    )


def regroup(layers: EntityLayers, group: Tensor, scores: Tensor) -> EntityLayers:
    """Renames entity e to `group[e]`, int64 [E] in 0..G-1; `scores`: float [G]."""
    return replace(layers, entity=group[layers.entity], scores=scores)


def keep_entities(layers: EntityLayers, keep: Tensor) -> EntityLayers:
    """Removes entities where `keep` bool [E] is False; their pixels go to the masks below them."""
    stay = keep[layers.entity].nonzero().squeeze(1)
    # Row and column 0 of `beats` are the free pixels, which always stay.
    rows = torch.cat([stay.new_zeros(1), stay + 1])
    number = keep.long().cumsum(0) - 1  # [E] new number of each kept entity
    return EntityLayers(
        layers.logits[stay], layers.beats[rows][:, rows], number[layers.entity[stay]], layers.scores[keep]
    )


def _covered(start: int, end: int, cells: int, pixels: int) -> tuple[int, int]:
    """Range of pixels whose bilinear value can depend on the cells start..end-1."""
    scale = pixels / cells
    return max(0, int((start - 0.5) * scale) - 1), min(pixels, int((end + 0.5) * scale) + 2)
