"""Labels saved predictions of any method on an evaluation set, in the formats of `engine.formats.base`.

Segments of panoptic predictions and tubes of instance predictions get new categories and, in instance segmentation, new
scores; their masks are kept. This is the supplement's Table 3: EntitySAM's classification on the masks of other methods.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from entitysam.classification.labeller import EntityCrop
from entitysam.classification.masklets import MapMasklets, TubeMasklets
from entitysam.classification.protocols import chosen_labels
from entitysam.config import to_dict
from entitysam.data.evaluation.base import EvaluationSet
from entitysam.data.images import read_image
from entitysam.data.masks import read_mask
from entitysam.engine.evaluate.run import build_dataset, build_prediction_format
from entitysam.engine.formats import instances, panoptic
from entitysam.engine.formats.base import Entry, PredictionError, PredictionFormat
from entitysam.engine.labelling.evaluation import SHEETS, VideoLabeller, build_video_labeller
from entitysam.engine.labelling.results import check_named
from entitysam.registry import ConfigError
from entitysam.structures import Video

OnVideo = Callable[[int], None]


@dataclass
class SavedSegments:
    """The segments of a panoptic prediction as entities 1..n; a `Segmented`.

    Attributes:
        ids: int64 [n] segment ids of the file, ascending.
        scores: float [n], per segment the maximum over its frames; 1 where the file gives no score.
        read: index of a frame -> int [H, W] segment ids.
        length: number of frames.
    """

    ids: np.ndarray
    scores: np.ndarray
    read: Callable[[int], np.ndarray]
    length: int

    def iter_ids(self) -> Iterator[np.ndarray]:
        """int32 [H, W] of each frame with entities 1..n; 0 = none."""
        for frame in range(self.length):
            found = self.read(frame)
            entities = np.searchsorted(self.ids, found) + 1  # position in the sorted ids
            yield np.where(np.isin(found, self.ids), entities, 0).astype(np.int32)


@dataclass
class PredictionLabeller:
    """Labels the predictions in a folder.

    Attributes:
        dataset: the evaluation set of the predictions.
        source: format of the predictions.
        target: format of the labelled predictions, in another folder.
        labeller: labels the entities.
    """

    dataset: EvaluationSet
    source: PredictionFormat
    target: PredictionFormat
    labeller: VideoLabeller
    index: dict[str, list[Entry]] = field(init=False)

    def __post_init__(self) -> None:
        self.index = self.source.read_index()

    def videos(self) -> list[Video]:
        """The videos with a prediction."""
        return [video for video in self.dataset.videos if str(video.video_id) in self.index]

    def draw(self, video: Video) -> list[EntityCrop]:
        """The crops that labelling would send, for a dry run.

        Raises:
            PredictionError, DataError: broken predictions or frames.
        """
        entry = self._entry(video)
        frames = (read_image(file) for file in video.frame_files)
        if isinstance(self.source, instances.InstanceFormat):
            return self.labeller.labeller.draw(self._tubes(video, entry), frames)
        segments = self._segments(video, entry)
        return self.labeller.labeller.draw(MapMasklets(segments.iter_ids, len(segments.ids)), frames)

    def write(self, video: Video) -> Entry:
        """Labels one video and writes its masks.

        Returns:
            the video's entry for the index file.

        Raises:
            PredictionError, DataError: broken predictions or frames; ClassifierError: no crop can get an answer.
        """
        entry = self._entry(video)
        if isinstance(self.source, instances.InstanceFormat):
            return self._label_results(video, entry)
        named = self.labeller.label(video, self._segments(video, entry))
        return self.target.write(video, named, named.categories)

    def run(self, on_video: OnVideo = lambda count: None) -> None:
        """Labels all videos and writes the index file.

        Raises:
            ClassifierError: no entity gets a name; there is no index file then.
        """
        entries = []
        for video in self.videos():
            entries.append(self.write(video))
            on_video(1)
        counts = self.labeller.statistics()
        check_named(self.labeller.labeller, counts["entities"], counts["unnamed"], self.source.folder)
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
                if len(codes) != len(video.frame_files) or not math.isfinite(float(result.get("score", 1.0))):
                    raise ValueError(f"{len(codes)} masks for {len(video.frame_files)} frames, or an infinite score")
            except (KeyError, TypeError, ValueError) as error:
                raise PredictionError(
                    f"video {video.video_id}, result {position}: no usable masks ({error})"
                ) from error
        return TubeMasklets(tubes)

    def _label_results(self, video: Video, entry: Entry) -> Entry:
        """The results of a known class, with its category; the confidence is multiplied into the score."""
        answers = self.labeller.label_masklets(video, self._tubes(video, entry))
        return [
            {**result, "category_id": label.category_id, "score": float(result.get("score", 1.0)) * answer.confidence}
            for result, answer, label in zip(entry, answers, chosen_labels(answers, self.labeller.labels))
            if label is not None and not label.is_background
        ]


def open_predictions(config: DictConfig, folder: Path, out: Path, node: dict[str, Any]) -> PredictionLabeller:
    """Opens the predictions in a folder for labelling.

    Args:
        config: `evaluation.dataset` and `evaluation.task` are used.
        folder: panoptic predictions (`pred.json`) or instances (`results.json`).
        out: another folder, for the labelled predictions.
        node: config node of the classifier.

    Raises:
        ConfigError: a part that cannot be built, or instances for another task than "vis".
        PredictionError: no predictions in the folder; DataError: no data set.
    """
    if out.resolve() == folder.resolve():
        raise ConfigError(f"{out}: labelled predictions need another folder")
    dataset, task = build_dataset(config), to_dict(config)["evaluation"]["task"]
    if task not in ("vps", "vss", "vis"):
        raise ConfigError(f"evaluation.task: labels are for vps, vss and vis, not '{task}'")
    target = build_prediction_format(config, dataset, out)
    source: PredictionFormat
    if (folder / panoptic.INDEX).is_file():
        if dataset.annotation_format == "instances":
            raise ConfigError(f"{folder}: panoptic predictions, but {dataset.title} is a data set of instances")
        source = panoptic.PanopticFormat(folder, dataset, class_agnostic=True)
    elif (folder / instances.INDEX).is_file():
        if task != "vis":
            raise ConfigError(f"{folder}: instances can be labelled for evaluation.task=vis only, not for '{task}'")
        source = instances.InstanceFormat(folder, dataset, class_agnostic=True)
    else:
        known = f"{panoptic.INDEX} or {instances.INDEX}"
        raise PredictionError(f"{folder}: no predictions with masks ({known})")
    labeller = build_video_labeller(node, task, dataset, out / SHEETS)
    return PredictionLabeller(dataset, source, target, labeller)
