"""Baselines of the class-agnostic table. Each is a `VideoMethod`.

Registered in METHODS for `tools/eval_net.py --baseline NAME[:key=value,...]`.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from entitysam.esam.video import IoULinker, segment_frames
from entitysam.inference.segmenter import VideoSegmenter
from entitysam.registry import METHODS, ConfigError, build
from entitysam.settings import parse_value

FrameEntities = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # RGB frame -> ids 1..n int [H, W], scores [n]


class StreamedVideo:
    """The entity maps of a video, computed in one pass; `scores` is complete after it.

    Args:
        maps: per frame the ids int32 [H, W] and the score of each id on the frame.
    """

    def __init__(self, maps: Iterable[tuple[np.ndarray, dict[int, float]]]) -> None:
        self._maps = maps
        self._sum: dict[int, list[float]] = {}

    def iter_ids(self) -> Iterator[np.ndarray]:
        for ids, scores in self._maps:
            for number, score in scores.items():
                self._sum.setdefault(number, []).append(score)
            yield ids

    @property
    def scores(self) -> np.ndarray:
        """float64 [n] mean score over the frames on which id 1..n is visible."""
        scores = np.zeros(max(self._sum, default=0))
        for number, values in self._sum.items():
            scores[number - 1] = np.mean(values)
        return scores


@METHODS.register("whole_frame")
class WholeFrame:
    """One entity that covers the whole frame."""

    def segment(self, frames: Iterable[np.ndarray], out_size: tuple[int, int]) -> StreamedVideo:
        return StreamedVideo((np.ones(out_size, np.int32), {1: 1.0}) for _ in frames)


@METHODS.register("grid")
class Grid:
    """One entity per cell of a fixed grid.

    Args:
        cells: number of cells along each axis.
    """

    def __init__(self, cells: int = 4) -> None:
        if cells < 1:
            raise ConfigError(f"baseline 'grid': {cells} cells; there must be 1 or more")
        self.cells = cells

    def segment(self, frames: Iterable[np.ndarray], out_size: tuple[int, int]) -> StreamedVideo:
        rows, columns = (np.arange(side) * self.cells // side for side in out_size)
        ids = (rows[:, None] * self.cells + columns + 1).astype(np.int32)
        scores = dict.fromkeys(np.unique(ids).tolist(), 1.0)
        return StreamedVideo((ids, scores) for _ in frames)


class LinkedFrames:
    """Segments each frame independently and links entities by mask IoU.

    Args:
        entities_of: (H, W) of the maps -> segmenter of one frame.
        min_iou: minimum IoU to keep an id.
    """

    def __init__(self, entities_of: Callable[[tuple[int, int]], FrameEntities], min_iou: float = 0.5) -> None:
        self.entities_of = entities_of
        self.min_iou = min_iou

    def segment(self, frames: Iterable[np.ndarray], out_size: tuple[int, int]) -> StreamedVideo:
        return StreamedVideo(self._link(frames, self.entities_of(out_size)))

    def _link(
        self, frames: Iterable[np.ndarray], entities_of: FrameEntities
    ) -> Iterator[tuple[np.ndarray, dict[int, float]]]:
        linker = IoULinker(self.min_iou)
        for frame in frames:
            linked = linker.link(*entities_of(frame))
            yield linked.ids, linked.scores


@METHODS.register("per_frame")
def per_frame(model: Any, inference: dict[str, Any], min_iou: float = 0.5) -> LinkedFrames:
    """The network on single frames, without memory; entities are linked by IoU."""
    segmenter = VideoSegmenter(model, **{**inference, "appearance": "none"})

    def at(out_size: tuple[int, int]) -> FrameEntities:
        def entities_of(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            segmented = segmenter.segment([frame], out_size)
            return next(segmented.iter_ids()), segmented.scores

        return entities_of

    return LinkedFrames(at, min_iou)


class LinkedESAM:
    """E-SAM on single frames; entities are linked by IoU.

    Args:
        method: `esam.segmenter.ESAM`, or anything with its `segment`.
        min_iou: as for `esam.video.segment_frames`.
    """

    def __init__(self, method: Any, min_iou: float = 0.5) -> None:
        self.method = method
        self.min_iou = min_iou

    def segment(self, frames: Iterable[np.ndarray], out_size: tuple[int, int]) -> StreamedVideo:
        tracked = segment_frames(self.method, _checked(frames, out_size), self.min_iou)
        return StreamedVideo((frame.ids, frame.scores) for frame in tracked)


def _checked(frames: Iterable[np.ndarray], size: tuple[int, int]) -> Iterator[np.ndarray]:
    for frame in frames:
        if frame.shape[:2] != tuple(size):
            raise ValueError(f"frame is {frame.shape[1]}x{frame.shape[0]}, its annotation {size[1]}x{size[0]}")
        yield frame


def parse_baseline(text: str) -> dict[str, Any]:
    """ "grid:cells=8" -> {"name": "grid", "cells": 8}.

    Raises:
        ConfigError: an option that is not `key=value`.
    """
    name, _, options = text.partition(":")
    node: dict[str, Any] = {"name": name}
    for option in filter(None, options.split(",")):
        key, equals, value = option.partition("=")
        if not equals:
            raise ConfigError(f"--baseline {text}: '{option}' is not key=value")
        node[key] = parse_value(value)
    return node


def build_baseline(text: str, open_model: Callable[[], Any], inference: dict[str, Any]) -> Any:
    """A baseline from its description.

    Args:
        text: NAME[:key=value,...]. "esam" and "sam" (SAM's automatic masks) take `min_iou` and the keys of
            `esam.settings.method_from_options`: "esam:model=vit_b,weights=FILE,refinement.tolerance=0.2".
        open_model: opens the network, for "per_frame".
        inference: settings of `VideoSegmenter`, for "per_frame".

    Raises:
        ConfigError: unknown baseline or key.
    """
    node = parse_baseline(text)
    if node["name"] in ("esam", "sam"):
        from entitysam.esam.settings import method_from_options

        min_iou = node.pop("min_iou", 0.5)
        return LinkedESAM(method_from_options(node), min_iou)
    if node["name"] == "per_frame":
        return build(METHODS, node, "baseline", model=open_model(), inference=inference)
    return build(METHODS, node, "baseline")
