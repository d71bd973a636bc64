"""Names for saved predictions of any method on an evaluation set, in the formats of `engine.formats.base`.

Segments of panoptic predictions and tubes of instance predictions get new categories and, in instance segmentation, new
scores; their masks stay. This is the supplement's Table 3: the classification of EntitySAM for the masks of others.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from entitysam.classification.labeller import EntityCrop
from entitysam.classification.masklets import TubeMasklets
from entitysam.classification.protocols import chosen_labels
from entitysam.config import to_dict
from entitysam.data.evaluation.base import EvaluationSet
from entitysam.data.images import read_image
from entitysam.data.masks import read_mask
from entitysam.engine.evaluate.run import build_dataset, build_prediction_format
from entitysam.engine.formats import instances, panoptic
from entitysam.engine.formats.base import Entry, PredictionError, PredictionFormat
from entitysam.engine.labelling.evaluation import SHEETS, KeptMaps, VideoLabeller, build_video_labeller
from entitysam.registry import ConfigError
from entitysam.structures import Video

Step = Callable[[int], None]


@dataclass
class SavedSegments:
    """The segments of a panoptic prediction as entities 1..n; a `Segmented`.

    Attributes:
        scores: float [n], the best that the file gives; 1 where it gives none.
    """

    ids: np.ndarray  # [n] ascending, as they stand in the file
    scores: np.ndarray
    read: Callable[[int], np.ndarray]
    length: int

    def iter_ids(self) -> Iterator[np.ndarray]:
        for frame in range(self.length):
            found = self.read(frame)
            place = np.searchsorted(self.ids, found).clip(max=max(len(self.ids) - 1, 0))
            listed = np.isin(found, self.ids)
            yield np.where(listed, place + 1, 0).astype(np.int32)


@dataclass
class PredictionLabeller:
    """Names the predictions in a folder.

    Attributes:
        dataset: whose videos they are of.
        source: prediction format of the folder they are in.
        target: prediction format of the folder for the named ones.
        labeller: names the entities.
    """

    dataset: EvaluationSet
    source: PredictionFormat
    target: PredictionFormat
    labeller: VideoLabeller
    index: dict[str, list[Entry]] = field(init=False)

    def __post_init__(self) -> None:
        self.index = self.source.read_index()

    def videos(self) -> list[Video]:
        """The predicted videos."""
        return [video for video in self.dataset.videos if str(video.video_id) in self.index]

    def draw(self, video: Video) -> list[EntityCrop]:
        """The pictures of a video's entities.

        Raises:
            PredictionError, DataError: broken predictions or frames.
        """
        entry = self._entry(video)
        if isinstance(self.source, instances.InstanceFormat):
            frames = (read_image(file) for file in video.frame_files)
            return self.labeller.labeller.draw(self._tubes(video, entry), frames)
        return self.labeller.draw(video, KeptMaps(self._segments(video, entry)))

    def write(self, video: Video) -> Entry:
        """Names and writes one video; what the index file is to say of it.

        Raises:
            PredictionError, DataError: see `draw`; ClassifierError: no names are to be had.
        """
        entry = self._entry(video)
        if isinstance(self.source, instances.InstanceFormat):
            return self._named_results(video, entry)
        named = self.labeller.name(video, self._segments(video, entry))
        return self.target.write(video, named, named.categories)

    def run(self, on_video: Step = lambda count: None) -> None:
        """Names all videos and writes the index file."""
        entries = []
        for video in self.videos():
            entries.append(self.write(video))
            on_video(1)
        self.target.write_index(entries)

    def _entry(self, video: Video) -> Entry:
        entries = self.index[str(video.video_id)]
        if len(entries) > 1:
            raise PredictionError(f"video {video.video_id}: predicted {len(entries)} times")
        return entries[0]

    def _segments(self, video: Video, entry: Entry) -> SavedSegments:
        assert isinstance(self.source, panoptic.PanopticFormat)
        sequence = self.source.sequence(video, entry)
        scores: dict[int, float] = {}
        for segment in (segment for frame in sequence.segments for segment in frame):
            number = int(segment["id"])
            scores[number] = max(scores.get(number, 0.0), float(segment.get("score", 1.0)))
        ids = np.array(sorted(scores), np.int64)
        return SavedSegments(ids, np.array([scores[n] for n in sorted(scores)]), sequence.read, len(sequence))

    def _tubes(self, video: Video, entry: Entry) -> TubeMasklets:
        key = "segmentation" if self.dataset.is_images else "segmentations"
        size = video.height, video.width
        tubes = []
        for position, result in enumerate(entry):
            try:
                codes = [result[key]] if self.dataset.is_images else result[key]
                tubes.append([None if code is None else read_mask(code, *size) for code in codes])
            except (KeyError, TypeError, ValueError) as error:
                raise PredictionError(
                    f"video {video.video_id}, result {position}: no usable masks ({error})"
                ) from error
        return TubeMasklets(tubes)

    def _named_results(self, video: Video, entry: Entry) -> Entry:
        """The results whose class is of the list, with it, and their scores weighed by its confidence."""
        shown = self.draw(video)
        answers = self.labeller.answers(video, shown, len(entry))
        return [
            {**result, "category_id": label.category_id, "score": float(result.get("score", 1.0)) * answer.confidence}
            for result, answer, label in zip(entry, answers, chosen_labels(answers, self.labeller.labels))
            if label is not None and not label.is_background
        ]


def open_predictions(config: DictConfig, folder: Path, out: Path, node: dict[str, Any]) -> PredictionLabeller:
    """What names the predictions in a folder.

    Args:
        config: `evaluation.dataset` and `evaluation.task` are used.
        folder: with panoptic predictions (`pred.json`) or instances (`results.json`).
        out: for the named predictions, another folder.
        node: of the classifier.

    Raises:
        ConfigError: what cannot be built, or names of instances for another task than "vis".
        PredictionError: no predictions there; DataError: no data set.
    """
    if out.resolve() == folder.resolve():
        raise ConfigError(f"{out}: named predictions need a folder of their own")
    dataset, task = build_dataset(config), to_dict(config)["evaluation"]["task"]
    if task not in ("vps", "vss", "vis"):
        raise ConfigError(f"evaluation.task: names are for vps, vss and vis, not '{task}'")
    target = build_prediction_format(config, dataset, out)
    source: PredictionFormat
    if (folder / panoptic.INDEX).is_file():
        if dataset.annotation_format == "instances":
            raise ConfigError(f"{folder}: panoptic predictions, and {dataset.title} is a data set of instances")
        source = panoptic.PanopticFormat(folder, dataset, class_agnostic=True)
    elif (folder / instances.INDEX).is_file():
        if task != "vis":
            raise ConfigError(f"{folder}: instances can be named for evaluation.task=vis only, not for '{task}'")
        source = instances.InstanceFormat(folder, dataset, class_agnostic=True)
    else:
        known = f"{panoptic.INDEX} or {instances.INDEX}"
        raise PredictionError(f"{folder}: no predictions with masks of entities ({known})")
    labeller = build_video_labeller(node, task, dataset, out / SHEETS)
    return PredictionLabeller(dataset, source, target, labeller)
