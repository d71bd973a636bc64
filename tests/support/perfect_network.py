"""A network without weights that segments perfectly: the pixels of a frame are the ids of its entities."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from entitysam.structures import FrameOutput

CHANNELS, CELLS = 32, 16  # of the appearance map


def frame_of(ids: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] a frame that shows a map int [H, W]."""
    return np.stack([ids % 256, ids // 256, np.zeros_like(ids)], axis=-1).astype(np.uint8)


def looks(count: int) -> Tensor:
    """float32 [count, C] the appearance of each id; 0 = background has none."""
    codes = F.normalize(torch.randn(count, CHANNELS, generator=torch.Generator().manual_seed(0)), dim=1)
    codes[0] = 0
    return codes


@dataclass(frozen=True)
class Features:
    ids: Tensor
    cells: Tensor | None


@dataclass(frozen=True)
class State:
    shown: tuple[int, ...]  # the id that each query follows, 0 = none


class PerfectNetwork:
    """Q queries; each follows an entity while it is visible.

    Args:
        num_queries: Q.
        appearance: give an appearance map.
        reuse: a query whose entity is gone follows the next new one; otherwise it waits for its entity.
    """

    device = torch.device("cpu")

    def __init__(self, num_queries: int = 50, appearance: bool = True, reuse: bool = True) -> None:
        self.num_entities, self.appearance, self.reuse = num_queries, appearance, reuse
        self._looks = looks(4096)

    def initial_state(self) -> State:
        return State((0,) * self.num_entities)

    def prepare(self, frame: np.ndarray) -> Tensor:
        pixels = torch.from_numpy(frame).int()
        return pixels[..., 0] + 256 * pixels[..., 1]

    def encode(self, images: Tensor) -> list[Features]:
        return [Features(ids, self._cells(ids) if self.appearance else None) for ids in images]

    def propagate(self, features: Features, state: State) -> tuple[FrameOutput, Any]:
        visible = [number for number in features.ids.unique().tolist() if number]
        shown = [number if number in visible or not self.reuse else 0 for number in state.shown]
        waiting = [number for number in visible if number not in shown]
        for query, number in enumerate(shown):
            if not number and waiting:
                shown[query] = waiting.pop(0)
        numbers = torch.tensor(shown)
        masks = (features.ids == numbers[:, None, None]) & (numbers > 0)[:, None, None]  # [Q, H, W]
        score = torch.where(masks.flatten(1).any(1), 0.9, 0.001)
        empty = torch.zeros(len(numbers), 2)
        return FrameOutput(masks * 18.0 - 9, score, empty, empty, score), replace(state, shown=tuple(shown))

    def _cells(self, ids: Tensor) -> Tensor:
        """[CELLS * CELLS, C] mean appearance of the pixels of each cell."""
        image = self._looks[ids.long()].permute(2, 0, 1)  # [H, W, C] -> [C, H, W]
        return F.adaptive_avg_pool2d(image, CELLS).flatten(1).T


def moving_strips(num_frames: int, count: int = 4) -> np.ndarray:
    """int [T, 32, 48] maps on which `count` entities move to the right, each in rows of its own, and come in again."""
    maps = np.zeros((num_frames, 32, 48), int)
    for time in range(num_frames):
        for number in range(count):
            top, left = 6 * number + 1, int(0.7 * time + 11 * number) % 40
            maps[time, top : top + 5, left : left + 7] = number + 1
    return maps


def pairs(truth: Iterable[np.ndarray], found: Iterable[np.ndarray]) -> set[tuple[int, int]]:
    """All (id, found id) that share a pixel."""
    both = [np.unique(np.stack([a.ravel(), b.ravel()]), axis=1).T.tolist() for a, b in zip(truth, found, strict=True)]
    return {(a, b) for frame in both for a, b in frame}
