"""Point grids -> SAM's masks by level, filtered as in SAM's automatic mask generation (E-SAM, section 3.2, Eq. 1)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from entitysam.esam.bitmasks import MaskSet, areas, pack_above, to_half
from entitysam.esam.protocol import PromptableImage
from entitysam.registry import ConfigError

OBJECT, PART, SUBPART = 0, 1, 2
LARGEST_GRID = 1024  # points per side or per batch


@dataclass(frozen=True)
class PromptingConfig:
    """Prompting and filtering of the masks.

    Attributes:
        points_per_side: coarse grid (Table 4: 32).
        gallery_points_per_side: dense grid of the gallery (Table 4: 64).
        points_per_batch: points per call of the decoder (SAM's default: 64); no effect on the result.
        min_score: minimum predicted IoU (SAM's automatic mask generator: 0.88).
        min_stability: minimum stability score (SAM's automatic mask generator: 0.95).
        stability_offset: shift of the logit threshold for the stability score (SAM: 1.0).
    """

    points_per_side: int = 32
    gallery_points_per_side: int = 64
    points_per_batch: int = 64
    min_score: float = 0.88
    min_stability: float = 0.95
    stability_offset: float = 1.0

    def __post_init__(self) -> None:
        for name in ("points_per_side", "gallery_points_per_side", "points_per_batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: must be at least 1, not {getattr(self, name)}")
            if getattr(self, name) > LARGEST_GRID:
                raise ConfigError(f"{name}: must be at most {LARGEST_GRID}, not {getattr(self, name)}")


@dataclass
class PromptedMasks:
    """The masks of a set of points that pass the filters.

    Attributes:
        masks: N masks, in the order of their points.
        level: int64 [N] OBJECT, PART or SUBPART: rank by area among the three masks of its point.
        is_best: bool [N] whether it has the highest score of its point.
        point: int64 [N] index of its point.
    """

    masks: MaskSet
    level: Tensor
    is_best: Tensor
    point: Tensor


def point_grid(per_side: int, height: int, width: int) -> Tensor:
    """Centres of per_side x per_side equal cells of the image, row by row: float [per_side ** 2, 2] as (x, y) pixels."""
    steps = (torch.arange(per_side) + 0.5) / per_side
    y, x = torch.meshgrid(steps * height, steps * width, indexing="ij")
    return torch.stack([x, y], -1).view(-1, 2)


def prompt(
    image: PromptableImage,
    points: Tensor,
    config: PromptingConfig,
    every_level: bool = True,
    keep_logits: bool = True,
) -> PromptedMasks:
    """Prompts every point, ranks its three masks by area (Eq. 1) and applies SAM's filters.

    Args:
        points: [P, 2] (x, y) image pixels.
        every_level: False: only each point's object mask and its best mask.
        keep_logits: keep the logits of the masks (2 h w bytes each), which rendering needs.
    """
    parts = [
        _prompt_batch(image, batch, config, every_level, keep_logits) for batch in points.split(config.points_per_batch)
    ]
    firsts = range(0, len(points), config.points_per_batch)
    return PromptedMasks(
        MaskSet.cat([part.masks for part in parts]),
        torch.cat([part.level for part in parts]),
        torch.cat([part.is_best for part in parts]),
        torch.cat([part.point + first for part, first in zip(parts, firsts)]),
    )


def _prompt_batch(
    image: PromptableImage, points: Tensor, config: PromptingConfig, every_level: bool, keep_logits: bool
) -> PromptedMasks:
    logits, scores = image.predict(points)
    flat = logits.flatten(0, 1)  # [3 P, h, w]
    # Points whose three scores are all too low are skipped; ranking by area needs all three masks of the others.
    asked = (scores >= config.min_score).any(1).nonzero().squeeze(1)
    triples = (3 * asked[:, None] + torch.arange(3, device=asked.device)).flatten()  # [3 A] index into `flat`
    words = pack_above(flat, 0.0, triples)
    area = areas(words).view(-1, 3)
    rank = area.argsort(dim=1, descending=True, stable=True).argsort(dim=1)  # [A, 3], 0 = largest = OBJECT
    best = torch.zeros_like(rank, dtype=torch.bool).scatter_(1, scores[asked].argmax(1, keepdim=True), True)
    wanted = torch.ones_like(best) if every_level else best | (rank == OBJECT)
    wanted &= (scores[asked] >= config.min_score) & (area > 0)
    index = wanted.flatten().nonzero().squeeze(1)  # into the 3 A masks
    # Stability last: it thresholds every mask twice.
    index = index[stability(flat, config.stability_offset, triples[index]) >= config.min_stability]
    source, point = triples[index], asked[index // 3]
    masks = MaskSet(
        words[index],
        logits.shape[-1],
        scores.flatten()[source].float(),
        points.to(scores.device)[point],
        area.flatten()[index],
        to_half(flat, source) if keep_logits else None,
    )
    return PromptedMasks(masks, rank.flatten()[index], best.flatten()[index], point)


def stability(logits: Tensor, offset: float, index: Tensor | None = None) -> Tensor:
    """Stability score: IoU of each mask thresholded at +offset and at -offset (SAM).

    Args:
        logits: [N, h, w].
        index: int64 [n] selected masks; None = all.

    Returns:
        float [n] in 0..1.
    """
    inner, outer = (areas(pack_above(logits, threshold, index)) for threshold in (offset, -offset))
    return inner / outer.clamp(min=1)
