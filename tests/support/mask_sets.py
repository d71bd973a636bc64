"""Hand-made masks on a grid of 40 x 60 for the tests of E-SAM's modules."""

import torch

from entitysam.esam.bitmasks import MaskSet


def rectangle(x0: int, y0: int, x1: int, y1: int, size: tuple[int, int] = (40, 60)) -> torch.Tensor:
    """bool [H, W], True in the box; its ends are exclusive."""
    mask = torch.zeros(size, dtype=torch.bool)
    mask[y0:y1, x0:x1] = True
    return mask


def logits_of(mask: torch.Tensor, height: float = 10.0) -> torch.Tensor:
    """`height` inside the mask, `-height` outside."""
    return torch.where(mask, height, -height)


def make_set(masks: list[torch.Tensor], scores: list[float]) -> MaskSet:
    """A `MaskSet` of the masks, with logits; all prompts at (0, 0)."""
    logits = torch.stack([logits_of(mask) for mask in masks]) if masks else torch.zeros(0, 40, 60)
    return MaskSet.from_logits(logits, torch.tensor(scores), torch.zeros(len(masks), 2))
