"""Labels the videos of a data set in an evaluation: `evaluation.classifier` gives entities their categories."""

import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from entitysam.classification.classifier import Answer
from entitysam.classification.labeller import Labeller
from entitysam.classification.labels import Label
from entitysam.classification.masklets import MapMasklets, Masklets
from entitysam.classification.protocols import PROTOCOLS, NamedVideo, task_labels
from entitysam.data.evaluation.base import EvaluationSet
from entitysam.data.images import read_image
from entitysam.engine.formats.base import Segmented
from entitysam.engine.labelling.build import build_labeller
from entitysam.engine.labelling.video import label_video, write_sheet
from entitysam.io.files import as_stem
from entitysam.registry import ConfigError
from entitysam.structures import Video

SHEETS = "shown"


class StoredMaps:
    """The id maps of a segmented video in a temporary file. A method may yield its maps only once; these can be repeated.

    Attributes:
        scores: float [n].
        frame_scores: float [n, T], or None.
    """

    def __init__(self, segmented: Segmented) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - deleted with this object
        self._lengths: list[int] = []
        self._shape: tuple[int, ...] = (0, 0)
        for ids in segmented.iter_ids():
            packed = zlib.compress(np.ascontiguousarray(ids, np.int32).tobytes(), 1)
            self._file.write(packed)
            self._lengths.append(len(packed))
            self._shape = ids.shape
        self.scores = np.asarray(segmented.scores, float)  # complete only after the last map
        self.frame_scores = getattr(segmented, "frame_scores", None)
        if hasattr(segmented, "iter_dense_ids"):
            self.iter_dense_ids = segmented.iter_dense_ids

    def iter_ids(self) -> Iterator[np.ndarray]:
        """int32 [H, W] of each frame."""
        offset = 0
        for length in self._lengths:
            self._file.seek(offset)
            offset += length
            yield np.frombuffer(zlib.decompress(self._file.read(length)), np.int32).reshape(self._shape)

    def masklets(self) -> MapMasklets:
        """The maps as masklets 1..n."""
        return MapMasklets(self.iter_ids, len(self.scores))


class VideoLabeller:
    """Turns the entities of a data set's videos into segments of a class-specific task.

    Args:
        labeller: labels the entities.
        task: "vps", "vss" or "vis".
        labels: class list of the task.
        sheets: folder for one sheet per video with all crops and answers; None = no sheets.
    """

    def __init__(self, labeller: Labeller, task: str, labels: tuple[Label, ...], sheets: Path | None = None) -> None:
        self.labeller = labeller
        self.labels = labels
        self.sheets = sheets
        self._protocol = PROTOCOLS[task]
        self._counts = {"entities": 0, "unnamed": 0}

    def label(self, video: Video, segmented: Segmented) -> NamedVideo:
        """The segments of the task; the maps of `segmented` are read once.

        Raises:
            DataError: broken or missing frame; ClassifierError: no crop can get an answer.
        """
        maps = StoredMaps(segmented)
        answers = self.label_masklets(video, maps.masklets(), maps.frame_scores)
        return self._protocol(maps, answers, self.labels)

    def label_masklets(self, video: Video, masklets: Masklets, frame_scores: np.ndarray | None = None) -> list[Answer]:
        """An answer for each entity; updates the statistics and writes the sheet.

        Raises:
            DataError: broken or missing frame; ClassifierError: no crop can get an answer.
        """
        frames = (read_image(file) for file in video.frame_files)
        labelled = label_video(self.labeller, masklets, frames, frame_scores)
        self._counts["entities"] += len(labelled.answers)
        self._counts["unnamed"] += sum(answer.name is None for answer in labelled.answers)
        if self.sheets is not None:
            write_sheet(self.sheets / f"{as_stem(str(video.video_id))}.jpg", str(video.video_id), labelled)
        return list(labelled.answers)

    def statistics(self) -> dict[str, Any]:
        """Number of entities, number of those without a name, and the classifier's statistics, as plain data."""
        return {**self._counts, **self.labeller.classifier.statistics()}


def build_video_labeller(node: dict[str, Any], task: str, dataset: EvaluationSet, sheets: Path | None) -> VideoLabeller:
    """A labeller for the videos of a data set; arguments as for `VideoLabeller`.

    Raises:
        ConfigError: no classifier, one that gives no names, or see `build_labeller`.
    """
    path = "evaluation.classifier"
    if not node or node.get("name") == "none":
        raise ConfigError(
            f"{path}: missing; task '{task}' needs a classifier to label the entities of a model "
            "(saved predictions with categories need none: --predictions DIR)"
        )
    labels = task_labels(task, dataset.categories)
    return VideoLabeller(build_labeller(node, path, labels), task, labels, sheets)


def sum_statistics(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Merges the statistics of several processes: numbers are added, other values are taken from the first."""
    total: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            if isinstance(value, dict):
                total[key] = sum_statistics([total.get(key, {}), value])
            elif isinstance(value, int | float):
                total[key] = total.get(key, 0) + value
            else:
                total.setdefault(key, value)
    return total
