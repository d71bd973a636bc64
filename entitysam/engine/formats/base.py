"""Prediction formats: the submission formats of the benchmarks on disk, and their pairing with the ground truth.

A prediction format writes the entities of a video, returns one entry of plain data per video for the index file, and
converts ground truth and prediction to the input types of the evaluators. Saved predictions are read through the same
index files.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from entitysam.data.evaluation.base import EvaluationSet
from entitysam.data.images import read_image
from entitysam.io.json_files import JsonError, load_json
from entitysam.structures import Video

ENTITY = 1  # category id of class-agnostic entities
Entry = Any  # plain data of one video, as it stands in the index file


class Segmented(Protocol):
    """The entities of a video; `inference.segmenter.SegmentedVideo` is one.

    It may also have `frame_scores`, float [n, T], by which the frames for a classifier are chosen, and
    `iter_dense_ids(segments)`, maps without unassigned pixels for semantic segmentation.

    Attributes:
        scores: float [n] in 0..1, score of the entities 1..n; complete once all maps were read.
    """

    @property
    def scores(self) -> np.ndarray: ...
    def iter_ids(self) -> Iterator[np.ndarray]: ...


class VideoFrames:
    """The frames of a video, uint8 [H, W, 3] RGB, read one at a time, in order or by their number.

    Attributes:
        video: whose frames they are.

    Raises:
        DataError: on reading: broken or missing file.
    """

    def __init__(self, video: Video) -> None:
        self.video = video

    def __len__(self) -> int:
        return len(self.video)

    def __getitem__(self, index: int) -> np.ndarray:
        return read_image(self.video.frame_files[index])

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index] for index in range(len(self)))


class PredictionFormat(ABC):
    """One prediction format in one folder.

    Args:
        folder: of the predictions.
        dataset: the videos that are predicted.
        class_agnostic: all categories of ground truth and prediction are treated as one.
    """

    input_types: Sequence[type] = ()  # the types of `evaluation.videos` that `pair` can return

    def __init__(self, folder: Path, dataset: EvaluationSet, class_agnostic: bool) -> None:
        self.folder = folder
        self.dataset = dataset
        self.class_agnostic = class_agnostic
        self.warnings: Counter[str] = Counter()

    def check_outputs(self, videos: Sequence[Video]) -> None:
        """Checks the paths of all files that `write` creates for these videos.

        Raises:
            UnsafePathError: a path leaves `folder`, or leads through a symbolic link in it.
        """
        for video in videos:
            self.map_files(video)

    def map_files(self, video: Video) -> list[Path]:
        """The map of each frame that `write` creates; none in formats without maps."""
        return []

    def predict(self, method: Any, video: Video) -> Any:
        """The result of a method on a video, for `write`: by default that of its `segment` on the frames."""
        return method.segment(VideoFrames(video), (video.height, video.width))

    @abstractmethod
    def write(self, video: Video, segmented: Segmented, categories: np.ndarray | None = None) -> Entry:
        """Writes the predictions of one video.

        Args:
            video: of the data set.
            segmented: its entities.
            categories: int [n] category id of the entities 1..n; None for class-agnostic predictions.

        Returns:
            the entry of the video in the index file.
        """

    @abstractmethod
    def write_index(self, entries: Sequence[Entry]) -> None:
        """Writes the index file of these videos, which makes the folder a complete submission."""

    @abstractmethod
    def read_index(self) -> dict[str, list[Entry]]:
        """Entries of each video (by its id as a string) of saved predictions.

        Raises:
            PredictionError: index file missing or broken.
        """

    @abstractmethod
    def pair(self, video: Video, entry: Entry | None, kind: type) -> Any:
        """Ground truth and prediction (None: not predicted) of a video as the input type `kind`.

        Raises:
            PredictionError, EvaluationError: values of the wrong type; names the video and the place.
        """

    @abstractmethod
    def maps(self, video: Video, entry: Entry | None, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Annotated and predicted ids (or labels) int [H, W] of a frame for drawing; 0 = nothing. Sizes may differ."""


def read_index_file(path: Path) -> Any:
    """The contents of a JSON file of predictions.

    Raises:
        PredictionError: missing or broken.
    """
    try:
        return load_json(path)
    except JsonError as error:
        raise PredictionError(str(error)) from error


def resize_ids(ids: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map [h, w] at another size (H, W) by nearest neighbour."""
    rows, columns = (np.arange(side) * old // side for side, old in zip(size, ids.shape))
    return ids[rows[:, None], columns]  # [H, 1] x [W] -> [H, W]


class PredictionError(ValueError):
    """Saved predictions that cannot be used; the message names the file, and the video where there is one."""
