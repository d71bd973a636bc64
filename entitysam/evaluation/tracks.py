"""Tracked boxes: the input type of the tracking evaluators, and the box matching of HOTA and TETA."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from entitysam.evaluation.evaluator import EvaluationError

EPSILON = float(np.finfo(float).eps)
Similarity = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Tracks:
    """Annotated or predicted boxes of a video in file order, as aligned arrays.

    Attributes:
        frame: int64 [n] from 0.
        track_id: int64 [n], unique within a frame; valid within one video only.
        category: int64 [n].
        box: float64 [n, 4] x, y, width, height in pixels.
        ignore: bool [n], an annotated region in which predictions do not count.
    """

    frame: np.ndarray
    track_id: np.ndarray
    category: np.ndarray
    box: np.ndarray
    ignore: np.ndarray

    @classmethod
    def from_rows(cls, rows: Sequence[Sequence[float]], ignore: Sequence[bool] | None = None) -> "Tracks":
        """From rows [frame, track id, category, x, y, width, height, ...]."""
        table = np.array([row[:7] for row in rows], float).reshape(-1, 7)
        frame, track_id, category = table[:, :3].astype(np.int64).T
        flags = np.zeros(len(table), bool) if ignore is None else np.asarray(ignore, bool).reshape(-1)
        return cls(frame, track_id, category, table[:, 3:], flags)

    def __len__(self) -> int:
        return len(self.frame)

    def __getitem__(self, rows: np.ndarray) -> "Tracks":
        """The boxes selected by a mask bool [n] or by indices."""
        return Tracks(self.frame[rows], self.track_id[rows], self.category[rows], self.box[rows], self.ignore[rows])


@dataclass(frozen=True)
class TrackedVideo:
    """A video with its annotated and its predicted tracks."""

    video_id: Any
    truth: Tracks
    prediction: Tracks


@dataclass(frozen=True)
class FramePairs:
    """One frame with annotated or predicted boxes.

    Attributes:
        frame: index of the frame.
        truth, predicted: int64 [n], [m] index of each box's track in the video.
        truth_rows, predicted_rows: int64 [n], [m] index of each box in the `Tracks`.
        similarity: float64 [n, m] in 0..1.
    """

    frame: int
    truth: np.ndarray
    predicted: np.ndarray
    truth_rows: np.ndarray
    predicted_rows: np.ndarray
    similarity: np.ndarray


@dataclass(frozen=True)
class Alignment:
    """Two sets of tracks of one video, frame by frame; G and P tracks.

    Attributes:
        frames: frames with boxes, ascending.
        truth_ids, predicted_ids: int64 [G], [P] ids of the tracks, ascending.
        truth_boxes, predicted_boxes: int64 [G], [P] number of boxes of each track.
    """

    frames: list[FramePairs]
    truth_ids: np.ndarray
    predicted_ids: np.ndarray
    truth_boxes: np.ndarray
    predicted_boxes: np.ndarray

    @cached_property
    def global_score(self) -> np.ndarray:
        """Global alignment score of HOTA, float64 [G, P]: a soft Jaccard index of the two tracks over the video."""
        potential = np.zeros((len(self.truth_ids), len(self.predicted_ids)))
        for pairs in self.frames:
            similarity = pairs.similarity
            # Sum of all similarities in the row and the column of each pair: [n, m].
            rivals = similarity.sum(1, keepdims=True) + similarity.sum(0, keepdims=True) - similarity
            share = np.divide(similarity, rivals, out=np.zeros_like(similarity), where=rivals > EPSILON)
            potential[np.ix_(pairs.truth, pairs.predicted)] += share
        return potential / np.maximum(self.truth_boxes[:, None] + self.predicted_boxes - potential, EPSILON)

    def assign(self, pairs: FramePairs) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the one-to-one assignment of a frame that maximises global score x similarity."""
        score = self.global_score[np.ix_(pairs.truth, pairs.predicted)] * pairs.similarity
        return linear_sum_assignment(-score)

    def restrict(self, truth: np.ndarray, predicted: np.ndarray) -> "Alignment":
        """The same frames and tracks with the boxes selected by masks bool [n] and [m] over the `Tracks`."""
        frames = []
        truth_boxes, predicted_boxes = np.zeros_like(self.truth_boxes), np.zeros_like(self.predicted_boxes)
        for pairs in self.frames:
            rows, columns = truth[pairs.truth_rows], predicted[pairs.predicted_rows]
            frames.append(
                FramePairs(
                    pairs.frame,
                    pairs.truth[rows],
                    pairs.predicted[columns],
                    pairs.truth_rows[rows],
                    pairs.predicted_rows[columns],
                    pairs.similarity[np.ix_(rows, columns)],
                )
            )
            truth_boxes[pairs.truth[rows]] += 1
            predicted_boxes[pairs.predicted[columns]] += 1
        return Alignment(frames, self.truth_ids, self.predicted_ids, truth_boxes, predicted_boxes)


def align(
    truth: Tracks, predicted: Tracks, video_id: Any, similarity: Similarity | None = None, unique: bool = True
) -> Alignment:
    """Pairs two sets of tracks frame by frame.

    Args:
        truth, predicted: tracks of the video.
        video_id: for error messages.
        similarity: boxes [n, 4], boxes [m, 4] -> [n, m] in 0..1; `box_iou` by default.
        unique: require at most one box per track and frame.

    Raises:
        EvaluationError: `unique` is set and a track has two boxes on one frame.
    """
    similarity = similarity or box_iou
    truth_ids, truth_track = np.unique(truth.track_id, return_inverse=True)
    predicted_ids, predicted_track = np.unique(predicted.track_id, return_inverse=True)
    frames = []
    for frame in np.unique(np.concatenate([truth.frame, predicted.frame])):
        rows, columns = np.flatnonzero(truth.frame == frame), np.flatnonzero(predicted.frame == frame)
        for source, ids in (("ground truth", truth.track_id[rows]), ("prediction", predicted.track_id[columns])):
            values, counts = np.unique(ids, return_counts=True)
            for twice in values[counts > 1][:unique]:
                raise EvaluationError(f"video {video_id}, {source}, frame {frame}: id {twice} has two boxes")
        values = similarity(truth.box[rows], predicted.box[columns])
        frames.append(FramePairs(int(frame), truth_track[rows], predicted_track[columns], rows, columns, values))
    boxes = (
        np.bincount(truth_track, minlength=len(truth_ids)),
        np.bincount(predicted_track, minlength=len(predicted_ids)),
    )
    return Alignment(frames, truth_ids, predicted_ids, *boxes)


def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU [n, m] of boxes [n, 4] and [m, 4] as x, y, width, height; 0 if a box has no area."""
    shared = box_intersection(a, b)
    area_a, area_b = a[:, 2] * a[:, 3], b[:, 2] * b[:, 3]
    union = area_a[:, None] + area_b - shared
    valid = (area_a[:, None] > EPSILON) & (area_b > EPSILON) & (union > EPSILON)
    return np.divide(shared, union, out=np.zeros_like(union), where=valid)


def box_intersection(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Shared area [n, m] of boxes [n, 4] and [m, 4] as x, y, width, height."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])  # [n, m, 2] upper left corners
    high = np.minimum((a[:, :2] + a[:, 2:])[:, None], (b[:, :2] + b[:, 2:])[None])
    return np.prod(np.maximum(high - low, 0), axis=-1)  # [n, m]
