"""MASA as an evaluation method: tracks given detections through the videos of a data set."""

import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from entitysam.config import to_dict
from entitysam.data.detections.matching import ClipDetections
from entitysam.data.detections.readers import VideoRecords, read_detections
from entitysam.data.evaluation.base import EvaluationSet
from entitysam.data.images import frame_name
from entitysam.data.masks import read_mask
from entitysam.engine.formats.base import VideoFrames
from entitysam.engine.methods.masa import box_of_mask, needs_model, open_masa, tracker_settings
from entitysam.masa.tracker import Tracker
from entitysam.masa.video import Detect, TrackedFrame, VideoTracker
from entitysam.registry import ConfigError
from entitysam.settings import read_settings
from entitysam.structures import Detections, Video

logger = logging.getLogger(__name__)

TRUTH = "truth"  # instead of a file: the annotated boxes or masks, without their ids


@dataclass(frozen=True)
class EvaluationOptions:
    """Keys of `evaluation.tracker` besides those of the tracker itself; see `VideoTracking`."""

    detections: str | None = None
    proposals: int = 0
    fps: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.proposals <= 10_000:
            raise ConfigError(f"proposals: must be in 0..10000, not {self.proposals}")
        if self.fps is not None and not (math.isfinite(self.fps) and self.fps > 0):
            raise ConfigError(f"fps: must be positive and finite, not {self.fps}")


class VideoTracking:
    """Tracks given detections, the network's own proposals, or both.

    Args:
        config: the whole `Config`. `evaluation.tracker` has `detections` (a file or folder, see `data.detections.readers`, or
            "truth"), `proposals` (maximum number of the network's own proposals per frame, 0), `fps` of the videos before subsampling, and
            the keys of `engine.methods.masa.tracker_settings`.
        weights: of MASA, see `open_masa`.
        dataset: the evaluation set; its categories are matched to those of the detections by name, if both have names.
        device: device of the network.

    Attributes:
        warnings: reason -> number of detections that were not tracked.

    Raises:
        ConfigError: no detections, or wrong settings.
        DataError, CheckpointError, FileNotFoundError: files that cannot be used.
    """

    def __init__(self, config: DictConfig, weights: str, dataset: EvaluationSet, device: torch.device) -> None:
        node = to_dict(config)["evaluation"]["tracker"]
        detections = node.pop("detections", None)
        detections = node.pop("observations", detections)  # earlier name of the key, in saved configs
        own = {key: node.pop(key) for key in ("proposals", "fps") if key in node}
        options = read_settings(EvaluationOptions, {"detections": detections, **own}, "evaluation.tracker")
        self.proposals, self.fps = options.proposals, options.fps
        self.settings = tracker_settings(node)
        if not detections and not self.proposals:
            raise ConfigError("evaluation.tracker.detections: missing; a file of detections, or 'truth'")
        self.from_truth, self.annotation_format, self.device = detections == TRUTH, dataset.annotation_format, device
        if self.from_truth and self.annotation_format not in ("tracks", "instances"):
            raise ConfigError(f"evaluation.tracker.detections: {dataset.title} has no boxes or masks of instances")
        self.path = Path(detections) if detections and not self.from_truth else None
        self.contents = read_detections(self.path) if self.path else VideoRecords({})
        self.category_of = same_names(self.contents.categories, dataset.categories)
        self.warnings: Counter[str] = Counter(self.contents.warnings)
        self.model: Any = None
        if needs_model(self.settings, self.proposals):
            self.model = open_masa(weights, to_dict(config)["model"]).to(device)

    def track(self, video: Video) -> Iterator[TrackedFrame]:
        """Yields the tracking result of each frame of a video."""
        fps = self.fps / video.annotation.get("step", 1) if self.fps else None
        tracker = VideoTracker(Tracker(self.settings, fps), self.model, self.device, self.proposals)
        yield from tracker.stream(VideoFrames(video), self._detect(video))
        self.warnings.update(+tracker.warnings)

    def _detect(self, video: Video) -> Detect | None:
        """A function that gives the detections of frame `index` of the video."""
        if self.from_truth:
            truth = annotated_boxes(video) if self.annotation_format == "tracks" else annotated_instances(video)
            return lambda index, frame: truth[index]
        if self.path is None:
            return None
        names = [frame_name(file.name) for file in video.frame_files]
        numbers = [index * video.annotation.get("step", 1) for index in range(len(names))]
        given = ClipDetections(self.path, str(video.annotation["key"]), names, numbers, self.contents)
        logger.info("video %s: frames matched by %s", video.video_id, given.rule)
        return lambda index, frame: self._renamed(given.at(index, frame.shape[:2]))

    def _renamed(self, objects: Detections) -> Detections:
        if not self.category_of:
            return objects
        categories = [self.category_of.get(int(category), -1) for category in objects.categories]
        return replace(objects, categories=np.array(categories, np.int64))


def same_names(given: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> dict[int, int]:
    """Category id of the detections -> id of the data set's category of the same name; empty if names are missing."""
    if not all("name" in category for category in (*given, *wanted)):
        return {}
    number_of: Mapping[str, int] = {category["name"]: int(category["id"]) for category in wanted}
    return {int(category["id"]): number_of.get(category["name"], -1) for category in given}


def annotated_boxes(video: Video) -> list[Detections]:
    """Per frame the annotated objects of a video of the annotation format "tracks", crowds left out."""
    return [frame.objects[~frame.ignore] for frame in video.annotation["frames"]]


def annotated_instances(video: Video) -> list[Detections]:
    """Per frame the annotated masks of a video of the YouTube-VIS format, crowds left out."""
    frames: list[tuple[list[list[float]], list[int], list[Any]]] = [([], [], []) for _ in range(len(video))]
    for instance in video.annotation["instances"]:
        if instance.get("iscrowd", 0):
            continue
        for (boxes, categories, masks), shape in zip(frames, instance["segmentations"]):
            if shape is not None:
                code = read_mask(shape, video.height, video.width)
                masks.append(code)
                boxes.append(box_of_mask(code))
                categories.append(int(instance["category_id"]))
    return [Detections.of(boxes, None, categories, masks) for boxes, categories, masks in frames]
