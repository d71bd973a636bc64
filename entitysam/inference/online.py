"""Entities of a video frame by frame: running confidences, stable ids, and events (born, lost, back)."""

from collections import deque
from typing import Any

import numpy as np
import torch
from torch import Tensor

from entitysam.inference.identity import EntityRegistry
from entitysam.inference.panoptic import PanopticMerge
from entitysam.structures import Event

WINDOW = 7  # passes


class OnlineEntities:
    """The entities up to the current frame.

    The map of a frame is the panoptic merge of this frame alone. The confidence of an entity is the median of its scores
    over the last `window` passes. So an entity that appears late is shown as soon as one that appears early: on the
    4th frame with the default window of 7, at any time of the stream; and a score that rises for up to 3 frames shows
    nothing. (The published protocol takes the mean over the whole video, which needs the frames to come.) Ids are those
    of an `EntityRegistry`: they outlive a query that is used again for another entity.

    Args:
        patience: an entity is lost after so many frames without a pixel.
        window: passes whose scores count.
        settings: thresholds of `PanopticMerge`.

    Attributes:
        saturated: whether all queries showed an entity on the last frame, so that others may be missing.
    """

    def __init__(self, patience: int = 3, window: int = WINDOW, **settings: Any):
        self.registry = EntityRegistry(patience)
        self.saturated = False
        self.settings = settings
        self.recent: deque[Tensor] = deque(maxlen=window)  # scores [Q] of the last passes

    def count(self, score: Tensor) -> None:
        """Adds the scores [Q] of one pass."""
        self.recent.append(score.detach().float().cpu())

    def confidence(self) -> Tensor:
        """float32 [Q], the median over the window; the mean of the middle two where their number is even."""
        return torch.from_numpy(np.median(torch.stack(tuple(self.recent)).numpy(), axis=0))

    def update(
        self, mask_logits: Tensor, out_size: tuple[int, int], appearance: Tensor | None = None
    ) -> tuple[np.ndarray, dict[int, float], list[Event]]:
        """Merges the next frame, whose scores are counted already.

        Args:
            mask_logits: [Q, h, w], holes filled.
            out_size: (H, W) of the map.
            appearance: [Q, C] see `EntityRegistry.update`; None = ids depend on the overlap of masks alone.

        Returns:
            ids int32 [H, W] with 0 = no entity, the confidence of each id on the map, events.
        """
        confidence = self.confidence()
        merge = PanopticMerge(confidence, out_size, **self.settings)
        decision = merge.decide(lambda: [mask_logits[:, None]])  # a video of one frame
        self.saturated = len(decision.queries) == len(confidence)
        query_of = np.concatenate([[0], decision.queries + 1]).astype(np.int32)
        queries = query_of[next(merge.maps(lambda: [mask_logits[:, None]], decision))]
        ids, events = self.registry.update(queries, confidence, appearance)
        return ids, self.registry.scores(), events

    def state(self) -> dict[str, Any]:
        """Plain data and tensors for `load_state`."""
        return {"recent": tuple(self.recent), "registry": self.registry.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continues from what `state` gave."""
        self.recent = deque((score.cpu() for score in state["recent"]), maxlen=self.recent.maxlen)
        self.registry.load_state(state["registry"])
