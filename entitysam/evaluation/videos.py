"""Input types of the evaluators: a video (or an image) with ground truth and prediction.

Maps are read one frame at a time, so that a video takes the memory of one frame.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from entitysam.evaluation.evaluator import EvaluationError
from entitysam.evaluation.overlaps import Overlaps, frame_overlaps


@dataclass(frozen=True)
class PanopticSequence:
    """Ground truth or prediction of a panoptic video: the segments of the JSON and the maps of the PNGs.

    Attributes:
        segments: per frame the `segments_info` of the file, in file order: mappings with `id` (1..2^24-1),
            `category_id`, `area` in pixels and `iscrowd`. Ids are unique within one video only. Predictions may
            lack `area` and `iscrowd`, class-agnostic ones also `category_id`.
        read: frame index -> int32 [H, W] map of segment ids; 0 = void.
    """

    segments: Sequence[Sequence[Mapping[str, Any]]]
    read: Callable[[int], np.ndarray]

    def __len__(self) -> int:
        return len(self.segments)


@dataclass(frozen=True)
class PanopticVideo:
    """Frames of truth and prediction are paired by position. An image is a video of one frame.

    Pass one object to all evaluators of panoptic maps, so that its frames are decoded once.

    Attributes:
        video_id: its id in the benchmark's files.
        truth: the annotation.
        prediction: None if the video was not predicted.
    """

    video_id: Any
    truth: PanopticSequence
    prediction: PanopticSequence | None

    @cached_property
    def overlaps(self) -> Overlaps:
        """Pixels of every (truth id, predicted id) pair on every frame.

        Raises:
            EvaluationError: no prediction, or different numbers of frames or frame sizes.
        """
        truth, prediction = self.truth, self.prediction
        if prediction is None:
            raise EvaluationError(f"video {self.video_id}: not predicted")
        if len(truth) != len(prediction):
            raise EvaluationError(
                f"video {self.video_id}: {len(prediction)} frames predicted, {len(truth)} frames annotated"
            )
        frames = []
        for frame in range(len(truth)):
            truth_ids, predicted_ids = truth.read(frame), prediction.read(frame)
            _check_size(self.video_id, frame, truth_ids, predicted_ids)
            frames.append(frame_overlaps(truth_ids, predicted_ids))
        return Overlaps.from_frames(frames)


@dataclass(frozen=True)
class SemanticVideo:
    """A video with one class per pixel.

    Attributes:
        video_id: its id in the benchmark's files.
        frames: number of annotated frames.
        read_truth: frame index -> uint8 [H, W] as the data set stores it (VSPW: 0 others, 1..124 classes, 255 void).
        read_prediction: frame index -> uint8 [H, W] predicted classes 0..C-1 (the stored label minus 1).
    """

    video_id: Any
    frames: int
    read_truth: Callable[[int], np.ndarray]
    read_prediction: Callable[[int], np.ndarray]

    def read(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Truth and prediction of one frame.

        Raises:
            EvaluationError: different sizes.
        """
        truth, predicted = self.read_truth(frame), self.read_prediction(frame)
        _check_size(self.video_id, frame, truth, predicted)
        return truth, predicted


@dataclass(frozen=True)
class Instance:
    """A mask tube of a video, or a mask of an image; annotated or predicted.

    Attributes:
        category_id: category of the data set.
        masks: per frame a compressed COCO RLE (`ops.rle_encode`), None where the object is absent; an image has one.
        score: confidence of a prediction; higher is better.
        crowd: annotation of a group; neither counted as missed nor are detections on it counted as wrong.
        area: annotated area in pixels (a tube's: mean over the frames where it is visible); None = count the masks.
        occlusion: of OVIS annotations, per frame "no_occlusion", "slight_occlusion", "severe_occlusion" or None.
        annotation_id: of an annotation, for error messages. In the reference evaluators a match with id 0 does not count.
    """

    category_id: int
    masks: Sequence[Mapping[str, Any] | None]
    score: float = 1.0
    crowd: bool = False
    area: float | None = None
    occlusion: Sequence[str | None] | None = None
    annotation_id: int = 1


@dataclass(frozen=True)
class InstanceVideo:
    """A video, or an image, with its annotated and its predicted instances, both in file order.

    Attributes:
        video_id: its id in the benchmark's files.
        truth: the annotations.
        prediction: the detections; masks may overlap.
    """

    video_id: Any
    truth: Sequence[Instance]
    prediction: Sequence[Instance]


def _check_size(video_id: Any, frame: int, truth: np.ndarray, predicted: np.ndarray) -> None:
    if truth.shape != predicted.shape:
        raise EvaluationError(
            f"video {video_id}, frame {frame}: predicted map is {_size(predicted)}, ground truth {_size(truth)}"
        )


def _size(array: np.ndarray) -> str:
    """Width x height of an array [H, W]."""
    return "x".join(str(side) for side in reversed(array.shape))
