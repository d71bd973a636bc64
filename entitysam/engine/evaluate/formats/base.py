"""Predictions on disk, in the submission formats of the benchmarks, and their pairing with the ground truth.

A prediction format writes the entities of a video, keeps one entry of plain data per video for the index file, and gives
the evaluators what they take. Saved predictions of others come in by the same index files.
"""

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from entitysam.data.evaluation.base import EvaluationSet
from entitysam.data.images import read_image
from entitysam.structures import Video

ENTITY = 1  # category id of entities without names
Entry = Any  # plain data of one video, as it stands in the index file


class Segmented(Protocol):
    """What a method found in a video; `inference.segmenter.SegmentedVideo` is one.

    It may also have `frame_scores`, float [n, T], by which the frames that a classifier sees are chosen, and
    `iter_dense_ids(segments)`, maps without gaps for semantic segmentation.

    Attributes:
        scores: float [n], score 0..1 of the entities 1..n; complete once all maps were taken.
    """

    @property
    def scores(self) -> np.ndarray: ...
    def iter_ids(self) -> Iterator[np.ndarray]: ...


class Named(Segmented, Protocol):
    """Entities with categories; `classification.protocols.NamedVideo` is one.

    Attributes:
        categories: int64 [n] category ids of the entities 1..n.
    """

    @property
    def categories(self) -> np.ndarray: ...


class VideoFrames:
    """The frames of a video, uint8 [H, W, 3] RGB, each read when it is asked for; every `iter` begins anew.

    Raises:
        DataError: on iteration: broken or missing file.
    """

    def __init__(self, video: Video) -> None:
        self.files = video.frame_files

    def __iter__(self) -> Iterator[np.ndarray]:
        return (read_image(file) for file in self.files)


class PredictionFormat(ABC):
    """One format of predictions, in one folder.

    Args:
        folder: of the predictions.
        dataset: whose predictions they are.
        class_agnostic: categories of truth and prediction are one.
    """

    input_types: Sequence[type] = ()  # input types of `evaluation.videos` that it can give

    def __init__(self, folder: Path, dataset: EvaluationSet, class_agnostic: bool) -> None:
        self.folder = folder
        self.dataset = dataset
        self.class_agnostic = class_agnostic
        self.warnings: Counter[str] = Counter()

    def predict(self, method: Any, video: Video) -> Any:
        """What a method finds in a video, for `write`: by default what its `segment` gives for the frames."""
        return method.segment(VideoFrames(video), (video.height, video.width))

    @abstractmethod
    def write(self, video: Video, segmented: Segmented, categories: np.ndarray | None = None) -> Entry:
        """Writes one video.

        Args:
            video: of the data set.
            segmented: its entities.
            categories: int [n] category id of the entities 1..n; None where they have no names.

        Returns:
            what the index file is to say of it.
        """

    @abstractmethod
    def write_index(self, entries: Sequence[Entry]) -> None:
        """Writes the index file of these videos; without it the folder is no submission."""

    @abstractmethod
    def read_index(self) -> dict[str, list[Entry]]:
        """Entries of each video (by the text of its id) in a folder of saved predictions.

        Raises:
            PredictionError: index missing or broken.
        """

    @abstractmethod
    def pair(self, video: Video, entry: Entry | None, kind: type) -> Any:
        """Truth and prediction (None: not predicted) of a video as the input type `kind`."""

    @abstractmethod
    def maps(self, video: Video, entry: Entry | None, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Annotated and predicted ids (or labels) int [H, W] of a frame, to be looked at; 0 = nothing."""


def read_index_file(path: Path) -> Any:
    """The contents of a JSON file of predictions.

    Raises:
        PredictionError: missing or broken.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise PredictionError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise PredictionError(f"{path}: broken JSON ({error})") from error


class PredictionError(ValueError):
    """Saved predictions that cannot be used; the message names the file, and the video where there is one."""
