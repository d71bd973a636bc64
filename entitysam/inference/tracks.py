"""Masks of a whole video by entity, where a query follows several entities or several queries follow one.

The published protocol identifies an entity with its query. `EntityTracks` decides on every frame which entity each query shows
(`inference.identity`), and gives scores and mask logits by entity. The merge of the published protocol follows.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from entitysam.inference.identity import EntityRegistry
from entitysam.inference.panoptic import PanopticMerge

ABSENT = -32.0  # mask logit of an entity on frames without it
MIN_FRAMES = 3


class EntityTracks:
    """Which query shows which entity on each frame of a video.

    Args:
        chunks: each call iterates the filled mask logits of the video in order, as [Q, t, h, w] tensors.
        scores: float32 [T, Q] score of each query on each frame.
        appearance: [Q, C] what the queries of a frame show, for `EntityRegistry.update`; None = overlap alone decides.
        settings: thresholds of `PanopticMerge`.

    An entity that is seen on fewer than `MIN_FRAMES` frames (all, where there are fewer) is dropped.

    Attributes:
        queries: int64 [N, T] the query that shows entity n on frame t; -1 = none.
        frame_scores: float32 [N, T] score of that query; 0 where there is none.
        scores: float32 [N] mean over the frames with a query.
    """

    def __init__(
        self,
        chunks: Callable[[], Iterable[Tensor]],
        scores: Tensor,
        appearance: Callable[[int], Tensor | None] = lambda frame: None,
        **settings: Any,
    ) -> None:
        self._chunks, self._appearance = chunks, appearance
        num_frames = len(scores)
        shown = [on for on in self._follow(scores, settings).values() if len(on) >= min(MIN_FRAMES, num_frames)]
        self.queries = torch.full((len(shown), num_frames), -1)
        for row, query_on in zip(self.queries, shown):
            row[list(query_on)] = torch.tensor(list(query_on.values()))
        seen = self.queries >= 0
        self.frame_scores = scores.T.gather(0, self.queries.clamp(min=0)) * seen
        self.scores = self.frame_scores.sum(1) / seen.sum(1)

    def chunks(self) -> Iterator[Tensor]:
        """Mask logits of the entities, float32 [N, 1, h, w] frame by frame."""
        frame = 0
        for logits in self._chunks():
            for queries in logits.unbind(1):  # [Q, h, w]
                shown = self.queries[:, frame].to(logits.device)
                entities = queries[shown.clamp(min=0)]
                yield torch.where(shown[:, None, None] >= 0, entities, ABSENT)[:, None]
                frame += 1

    def main_queries(self) -> np.ndarray:
        """int64 [N] the query that shows each entity on most frames."""
        return np.array([np.bincount(row[row >= 0]).argmax() for row in self.queries.numpy()], np.int64)

    def _follow(self, scores: Tensor, settings: dict[str, Any]) -> dict[int, dict[int, int]]:
        """Entity -> {frame: query}, of the frames on which it has a pixel: each is merged alone, at the size of the masks."""
        registry = EntityRegistry()
        query_on: dict[int, dict[int, int]] = {}
        frame = 0
        for logits in self._chunks():
            for masks in logits.unbind(1):
                merge = PanopticMerge(scores[frame], tuple(masks.shape[-2:]), **settings)  # type: ignore[arg-type]
                video = [masks[:, None]]  # of one frame
                decision = merge.decide(lambda: video)  # noqa: B023 (called at once)
                query_of = np.concatenate([[0], decision.queries + 1]).astype(np.int32)
                shown = query_of[next(merge.maps(lambda: video, decision))]  # noqa: B023
                ids, _ = registry.update(shown, scores[frame], self._appearance(frame))
                for query, entity in np.unique(np.stack([shown[shown > 0], ids[shown > 0]], axis=1), axis=0).tolist():
                    query_on.setdefault(entity, {})[frame] = query - 1
                frame += 1
        return dict(sorted(query_on.items()))
