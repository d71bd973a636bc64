"""EntitySAM itself, and EntitySAM without memory, whose queries are linked from frame to frame (MinVIS, Huang et al., 2022)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from entitysam.engine.methods.context import MethodContext
from entitysam.engine.methods.masa import ReidentifyingSegmenter, open_reidentifier
from entitysam.engine.methods.streamed import StreamedVideo
from entitysam.inference.segmenter import QUERIES, SegmentedVideo, VideoSegmenter
from entitysam.inference.wrapped import WrappedModel
from entitysam.registry import METHODS
from entitysam.structures import FrameOutput


@METHODS.register("entitysam")
def entitysam(
    context: MethodContext, weights: str = "", model: str = "", inference: Mapping[str, Any] | None = None
) -> Any:
    """EntitySAM by the published protocol, with re-identification where the run asks for it.

    Args:
        context: of the run; weights, model: see `MethodContext.entity_sam`.
        inference: keys that differ from the run's, e.g. `entitysam:inference.fast=2`.
    """
    segmenter = context.segmenter(weights, model, **(inference or {}))
    if context.reid:
        return ReidentifyingSegmenter(segmenter, open_reidentifier(context.reid, context.device))
    return segmenter


@METHODS.register("online")
class Online:
    """EntitySAM frame by frame without look-ahead, with the ids of `entitysam segment --online` (see docs/IDENTITY.md).

    Args:
        context: of the run; weights, model, inference: as for `entitysam`.
    """

    def __init__(
        self, context: MethodContext, weights: str = "", model: str = "", inference: Mapping[str, Any] | None = None
    ) -> None:
        self.segmenter = context.segmenter(weights, model, **(inference or {}))

    def segment(self, frames: Iterable[np.ndarray], out_size: tuple[int, int]) -> StreamedVideo:
        return StreamedVideo((resized(result.ids, out_size), result.scores) for result in self.segmenter.stream(frames))


def resized(ids: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An id map int32 [h, w] at another size (H, W), nearest."""
    if ids.shape == size:
        return ids
    return cv2.resize(ids.astype(np.int32), (size[1], size[0]), interpolation=cv2.INTER_NEAREST)


@METHODS.register("minvis")
class LinkedQueries:
    """EntitySAM on every frame as if it were the first; queries are matched by their embeddings, then merged over the video.

    Args:
        context: of the run; weights, model: see `MethodContext.entity_sam`.
    """

    def __init__(self, context: MethodContext, weights: str = "", model: str = "") -> None:
        network = WithoutMemory(context.entity_sam(weights, model))
        # Nothing of other frames but the links, and a query is an entity.
        plain = {"warmup_frames": 0, "fast": 0, "compile": False, "appearance": "none", "ids": QUERIES}
        self.segmenter = VideoSegmenter(network, **{**context.inference, **plain})

    def segment(self, frames: Iterable[np.ndarray], out_size: tuple[int, int]) -> SegmentedVideo:
        return self.segmenter.segment(frames, out_size)


@dataclass
class LastQueries:
    """State between frames: embeddings [Q, C] of the last one, in the order of the tracks."""

    embeddings: Tensor | None = None


class WithoutMemory(WrappedModel):
    """EntitySAM as a `FrameModel` that forgets: row q of every output is the query that continues row q of the frame before.

    The assignment has the largest sum of cosine similarities (Hungarian method).

    Args:
        model: an `EntitySAM` in eval mode.
    """

    def initial_state(self) -> LastQueries:
        return LastQueries()

    def propagate(self, features: Any, state: LastQueries) -> tuple[FrameOutput, LastQueries]:
        output, _ = self.model.propagate(features, self.model.initial_state(), remember=False)
        if state.embeddings is not None:
            output = output.map(itemgetter(match_queries(state.embeddings, output.embeddings)))
        return output, LastQueries(output.embeddings)


def match_queries(before: Tensor, now: Tensor) -> Tensor:
    """For each of the queries [Q, C] of a frame its successor among those [Q, C] of the next: int64 [Q], a permutation."""
    similarity = F.normalize(before.float(), dim=1) @ F.normalize(now.float(), dim=1).T
    _, columns = linear_sum_assignment(similarity.cpu().numpy(), maximize=True)
    return torch.from_numpy(columns).to(now.device)
