"""Entities of a video as it comes: running confidences, stable ids, and who is born, lost and back."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from entitysam.inference.panoptic import PanopticMerge


@dataclass(frozen=True)
class Event:
    """Something that happened to an entity: `kind` is "born", "lost" or "back"."""

    kind: str
    id: int


class OnlineEntities:
    """What is known of the entities up to the current frame.

    The map of a frame is the panoptic merge of that frame alone, with the running mean scores; the id of an entity is its
    query + 1, and so never changes.

    Args:
        patience: an entity is lost after so many frames without a pixel.
        settings: thresholds of `PanopticMerge`.
    """

    def __init__(self, patience: int = 3, **settings: Any):
        self.patience = patience
        self.settings = settings
        self.total = torch.zeros(0, dtype=torch.float64)
        self.passes = 0
        self.unseen: dict[int, int] = {}  # id -> frames without a pixel, for every entity ever seen

    def count(self, score: Tensor) -> None:
        """Adds the scores [Q] of one pass to the running means."""
        score = score.detach().double().cpu()
        self.total = score if not len(self.total) else self.total + score
        self.passes += 1

    def update(
        self, mask_logits: Tensor, out_size: tuple[int, int]
    ) -> tuple[np.ndarray, dict[int, float], list[Event]]:
        """Filled logits [Q, h, w] of the next frame -> ids int32 [H, W], confidence of each id on it, events."""
        mean = (self.total / self.passes).float()
        merge = PanopticMerge(mean, out_size, **self.settings)
        decision = merge.decide(lambda: [mask_logits[:, None]])
        id_of = np.concatenate([[0], decision.queries + 1]).astype(np.int32)
        ids = id_of[next(merge.maps(lambda: [mask_logits[:, None]], decision))]
        present = sorted(int(i) for i in np.unique(ids) if i)
        return ids, {i: float(mean[i - 1]) for i in present}, self._events(present)

    def _events(self, present: list[int]) -> list[Event]:
        events = []
        for i in present:
            if i not in self.unseen:
                events.append(Event("born", i))
            elif self.unseen[i] >= self.patience:
                events.append(Event("back", i))
            self.unseen[i] = 0
        for i in self.unseen.keys() - set(present):
            self.unseen[i] += 1
            if self.unseen[i] == self.patience:
                events.append(Event("lost", i))
        return events

    def state(self) -> dict[str, Any]:
        """Plain data and tensors for `load_state`."""
        return {"total": self.total, "passes": self.passes, "unseen": dict(self.unseen)}

    def load_state(self, state: dict[str, Any]) -> None:
        self.total, self.passes = state["total"].cpu(), state["passes"]
        self.unseen = {int(key): int(value) for key, value in state["unseen"].items()}
