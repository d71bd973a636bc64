"""Names in evaluation: `evaluation.classifier` -> what gives a data set's videos their categories."""

import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from entitysam.classification import clip  # noqa: F401 - registers itself
from entitysam.classification.classifier import Answer
from entitysam.classification.labeller import EntityCrop, Labeller
from entitysam.classification.labels import Label
from entitysam.classification.masklets import MapMasklets
from entitysam.classification.protocols import PROTOCOLS, NamedVideo, task_labels
from entitysam.classification.visual_prompts import VisualPrompt
from entitysam.classification.vlm import classifier as vlm_classifier  # noqa: F401 - registers itself
from entitysam.data.evaluation.base import EvaluationSet
from entitysam.data.images import read_image
from entitysam.engine.formats.base import Segmented
from entitysam.io.files import as_stem, make_folder, whole_file
from entitysam.registry import CLASSIFIERS, ConfigError, build
from entitysam.structures import Video
from entitysam.visualization.image_grid import draw_image_grid

SHEETS = "shown"


class KeptMaps:
    """The maps of a segmented video, in a temporary file, so that they can be taken again: a method may give them once.

    Attributes:
        scores: float [n].
        frame_scores: float [n, T], or None.
    """

    def __init__(self, segmented: Segmented) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - goes with this object
        self._lengths: list[int] = []
        self._shape: tuple[int, ...] = (0, 0)
        for ids in segmented.iter_ids():
            packed = zlib.compress(np.ascontiguousarray(ids, np.int32).tobytes(), 1)
            self._file.write(packed)
            self._lengths.append(len(packed))
            self._shape = ids.shape
        self.scores = np.asarray(segmented.scores, float)
        self.frame_scores = getattr(segmented, "frame_scores", None)
        if hasattr(segmented, "iter_dense_ids"):
            self.iter_dense_ids = segmented.iter_dense_ids

    def iter_ids(self) -> Iterator[np.ndarray]:
        """int32 [H, W] of each frame."""
        place = 0
        for length in self._lengths:
            self._file.seek(place)
            place += length
            yield np.frombuffer(zlib.decompress(self._file.read(length)), np.int32).reshape(self._shape)


class VideoLabeller:
    """Gives the entities of a data set's videos the categories of a task.

    Args:
        labeller: finds the names.
        task: "vps", "vss" or "vis".
        labels: its class list.
        sheets: folder for a sheet per video with all that was shown and answered; None = no sheets.
    """

    def __init__(self, labeller: Labeller, task: str, labels: tuple[Label, ...], sheets: Path | None = None) -> None:
        self.labeller = labeller
        self.labels = labels
        self.sheets = sheets
        self._protocol = PROTOCOLS[task]
        self._counts = {"entities": 0, "unnamed": 0}

    def name(self, video: Video, segmented: Segmented) -> NamedVideo:
        """The segments of the task.

        Raises:
            DataError: broken or missing frame; ClassifierError: no picture can get a name.
        """
        kept = KeptMaps(segmented)
        answers = self.answers(video, self.draw(video, kept), len(kept.scores))
        return self._protocol(kept, answers, self.labels)

    def answers(self, video: Video, shown: list[EntityCrop], num_entities: int) -> list[Answer]:
        """An answer for each entity; counts them and draws the sheet.

        Raises:
            ClassifierError: no picture can get a name.
        """
        answers = self.labeller.name(shown, num_entities)
        self._counts["entities"] += len(answers)
        self._counts["unnamed"] += sum(answer.name is None for answer in answers)
        if self.sheets is not None and shown:
            write_sheet(self.sheets / f"{as_stem(str(video.video_id))}.jpg", str(video.video_id), shown, answers)
        return answers

    def draw(self, video: Video, kept: KeptMaps) -> list[EntityCrop]:
        """The pictures of a video's entities."""
        frames = (read_image(file) for file in video.frame_files)
        return self.labeller.draw(MapMasklets(kept.iter_ids, len(kept.scores)), frames, kept.frame_scores)

    def statistics(self) -> dict[str, Any]:
        """Entities so far, those without a name, and what the answers took (see `Classifier`)."""
        return {**self._counts, **self.labeller.classifier.statistics()}


def build_labeller(node: dict[str, Any], path: str, labels: tuple[Label, ...] | None) -> Labeller:
    """A labeller from a config node: `name`, the classifier's keys, `visual_prompt` (keys of `VisualPrompt`), `top_frames`.

    Raises:
        ConfigError: unknown name or key, or a value out of its range.
    """
    node = dict(node)
    top_frames, keys = node.pop("top_frames", 1), dict(node.pop("visual_prompt", None) or {})
    unknown = set(keys) - {"kind", "margin", "min_side", "max_side", "jpeg_quality"}
    if unknown:
        raise ConfigError(f"{path}.visual_prompt.{min(unknown)}: unknown key")
    visual_prompt = VisualPrompt(**keys)
    classifier = build(CLASSIFIERS, node, path, labels=labels, visual_prompt=visual_prompt)
    return Labeller(classifier, visual_prompt, top_frames)


def build_video_labeller(node: dict[str, Any], task: str, dataset: EvaluationSet, sheets: Path | None) -> VideoLabeller:
    """What names the videos of a data set; arguments as for `VideoLabeller`.

    Raises:
        ConfigError: see `build_labeller`; or a classifier that gives no names.
    """
    path = "evaluation.classifier"
    if not node or node.get("name") == "none":
        raise ConfigError(
            f"{path}: missing; task '{task}' needs one to name the entities of a model "
            "(saved predictions with names need none: --predictions DIR)"
        )
    labels = task_labels(task, dataset.categories)
    return VideoLabeller(build_labeller(node, path, labels), task, labels, sheets)


def write_sheet(path: Path, title: str, shown: list[EntityCrop], answers: list[Answer]) -> None:
    """Writes a sheet of what was shown and answered, as JPEG or PNG."""
    captions = []
    for one in shown:
        answer = answers[one.entity - 1]
        captions.append(f"{one.entity}: {answer.name or 'unknown'} {answer.confidence:.0%}")
    make_folder(path.parent)
    sheet = draw_image_grid([crop.image for crop in shown], captions, f"{title} · {len(answers)} entities")
    with whole_file(path) as temporary:
        sheet.save(temporary, format="PNG" if path.suffix == ".png" else "JPEG")


def sum_statistics(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The statistics of several processes as one: numbers are added, everything else is the first one's."""
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
