"""Masks of single frames, linked afterwards: by the overlap of masks, or by MASA's appearance."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from entitysam.engine.methods.context import MethodContext
from entitysam.engine.methods.frame_masks import build_masks
from entitysam.engine.methods.masa import detections_of_map, needs_model, tracker_settings
from entitysam.engine.methods.streamed import StreamedVideo
from entitysam.esam.video import IoULinker
from entitysam.masa.tracker import Tracker
from entitysam.masa.video import VideoTracker
from entitysam.ops import rle_decode
from entitysam.registry import METHODS

Frames = Iterable[np.ndarray]


@METHODS.register("per_frame")
class LinkedByOverlap:
    """Every frame by itself; an entity keeps its id where its mask overlaps enough with its last one.

    Args:
        context: of the run.
        masks: of the frames, see `frame_masks.build_masks`.
        min_iou, max_gap: see `esam.video.IoULinker`.
    """

    def __init__(
        self,
        context: MethodContext,
        masks: dict[str, Any] | None = None,
        min_iou: float = 0.5,
        max_gap: int = 0,
    ) -> None:
        self.masks, self.min_iou, self.max_gap = build_masks(masks, context), min_iou, max_gap

    def segment(self, frames: Frames, out_size: tuple[int, int]) -> StreamedVideo:
        return StreamedVideo(self._linked(frames, out_size))

    def _linked(self, frames: Frames, out_size: tuple[int, int]) -> Iterator[tuple[np.ndarray, dict[int, float]]]:
        linker = IoULinker(self.min_iou, self.max_gap)
        entities_of = self.masks.start(frames, out_size)
        for index, frame in enumerate(frames):
            linked = linker.link(*entities_of(index, frame))
            yield linked.ids, linked.scores


@METHODS.register("masa")
class LinkedByAppearance:
    """Every frame by itself; MASA links the boxes around the masks.

    Args:
        context: of the run.
        masks: of the frames, see `frame_masks.build_masks`.
        weights, model: of MASA, see `open_masa`.
        tracker: see `engine.methods.masa.tracker_settings`.
    """

    def __init__(
        self,
        context: MethodContext,
        masks: dict[str, Any] | None = None,
        weights: str = "",
        model: str = "",
        tracker: Mapping[str, Any] | None = None,
    ) -> None:
        self.settings = tracker_settings(tracker or {})
        self.masks, self.device = build_masks(masks, context), context.device
        self.model = context.masa(weights, model) if needs_model(self.settings, proposals=0) else None

    def segment(self, frames: Frames, out_size: tuple[int, int]) -> StreamedVideo:
        return StreamedVideo(self._tracked(frames, out_size))

    def _tracked(self, frames: Frames, out_size: tuple[int, int]) -> Iterator[tuple[np.ndarray, dict[int, float]]]:
        entities_of = self.masks.start(frames, out_size)
        tracker = VideoTracker(Tracker(self.settings, None), self.model, self.device)
        for tracked in tracker.stream(frames, lambda index, frame: detections_of_map(*entities_of(index, frame))):
            ids = np.zeros(out_size, np.int32)
            for number, mask in zip(tracked.ids.tolist(), tracked.objects.masks):
                ids[rle_decode(mask).astype(bool)] = number  # type: ignore[arg-type]
            yield ids, dict(zip(tracked.ids.tolist(), tracked.objects.scores.tolist()))
