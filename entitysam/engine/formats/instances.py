"""Instance predictions: `results.json` of YouTube-VIS and OVIS (with the zip for their servers), or of COCO for images."""

import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from entitysam.data.masks import read_mask
from entitysam.engine.formats.base import (
    ENTITY,
    Entry,
    PredictionError,
    PredictionFormat,
    Segmented,
    read_index_file,
    resize_ids,
)
from entitysam.engine.formats.segments import InstanceAnnotation, InstanceResult, OfImage, OfVideo
from entitysam.evaluation import EvaluationError, Instance, InstanceVideo
from entitysam.io.files import whole_file
from entitysam.io.json_files import check_type
from entitysam.io.writers.annotations import describe_entities
from entitysam.masa.video import TrackedFrame
from entitysam.ops import rle_decode
from entitysam.structures import Video

INDEX, ARCHIVE = "results.json", "results.zip"
Tube = tuple[list[Any], float, int]  # code per frame (None where absent), score, category id


class InstanceFormat(PredictionFormat):
    """The entry of a video is the list of its results; a video without results has no detections, which is valid."""

    input_types = (InstanceVideo,)

    @property
    def _key(self) -> str:
        return "image_id" if self.dataset.is_images else "video_id"

    def predict(self, method: Any, video: Video) -> Any:
        """The tracked frames of a method that tracks, otherwise the maps of one that segments."""
        return list(method.track(video)) if hasattr(method, "track") else super().predict(method, video)

    def write(self, video: Video, segmented: Any, categories: np.ndarray | None = None) -> Entry:
        length, key = video.annotation["length"], video.annotation["key"]
        found = tracked_tubes(segmented, length) if isinstance(segmented, list) else mapped_tubes(segmented, length)
        results = []
        for number, (masks, score, category) in found.items():
            if categories is not None:
                category = int(categories[number - 1])
            shape = {"segmentation": masks[0]} if self.dataset.is_images else {"segmentations": masks}
            results.append({self._key: key, "category_id": category, "score": score, **shape})
        return results

    def write_index(self, entries: Sequence[Entry]) -> None:
        text = json.dumps([result for results in entries for result in results])
        with whole_file(self.folder / INDEX) as temporary:
            temporary.write_text(text, encoding="utf-8")
        if not self.dataset.is_images:
            with (
                whole_file(self.folder / ARCHIVE) as temporary,
                zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
            ):
                archive.write(self.folder / INDEX, INDEX)

    def read_index(self) -> dict[str, list[Entry]]:
        path, kind = self.folder / INDEX, list[OfImage] if self.dataset.is_images else list[OfVideo]
        found: dict[str, list[Entry]] = {}
        for result in check_type(
            read_index_file(path), kind, f"{path}: not a result file of instances", PredictionError
        ):
            found.setdefault(str(result[self._key]), [[]])[0].append(result)
        return found

    def pair(self, video: Video, entry: Entry | None, kind: type) -> InstanceVideo:
        where, size = f"video {video.video_id}", (video.height, video.width)
        truth = [self._annotated(one, size, where) for one in video.annotation["instances"]]
        return InstanceVideo(video.annotation["key"], truth, [self._predicted(one, size, where) for one in entry or []])

    def _annotated(self, annotation: Mapping[str, Any], size: tuple[int, int], where: str) -> Instance:
        where = f"{where}, annotation {annotation['id']}"
        checked = check_type(annotation, InstanceAnnotation, where, EvaluationError)
        areas = [area for area in checked.get("areas") or [] if area]
        # The file's area of a tube is its mean over the frames on which it is visible.
        area = checked.get("area") if self.dataset.is_images else float(np.mean(areas)) if areas else 0.0
        return Instance(
            category_id=ENTITY if self.class_agnostic else self._category(checked, where),
            masks=self._masks(checked, size, where),
            crowd=checked.get("iscrowd", 0) == 1,
            area=area,
            occlusion=checked.get("occlusion"),
            annotation_id=checked["id"],
        )

    def _category(self, annotation: Mapping[str, Any], where: str) -> int:
        if "category_id" not in annotation:
            raise EvaluationError(f"{where}: no 'category_id'")
        return annotation["category_id"]

    def _predicted(self, result: Mapping[str, Any], size: tuple[int, int], where: str) -> Instance:
        checked = check_type(result, InstanceResult, f"{INDEX}: {where}", PredictionError)
        category = ENTITY if self.class_agnostic else checked["category_id"]
        return Instance(category, self._masks(checked, size, f"{where}, prediction"), score=checked["score"])

    def _masks(self, holder: Mapping[str, Any], size: tuple[int, int], where: str) -> list[Any]:
        """Compressed run-length codes per frame, None where absent."""
        key = "segmentation" if self.dataset.is_images else "segmentations"
        if key not in holder:
            raise EvaluationError(f"{where}: no '{key}'")
        shapes = [holder[key]] if self.dataset.is_images else holder[key]
        if not isinstance(shapes, list):
            raise EvaluationError(f"{where}: '{key}' is no list")
        try:
            return [None if shape is None else read_mask(shape, *size) for shape in shapes]
        except (TypeError, KeyError, ValueError) as error:
            raise EvaluationError(f"{where}: unusable segmentation: {error}") from error

    def maps(self, video: Video, entry: Entry | None, frame: int) -> tuple[np.ndarray, np.ndarray]:
        pair = self.pair(video, entry, InstanceVideo)
        size = (video.height, video.width)
        best_last = sorted(pair.prediction, key=lambda instance: instance.score)
        return paint(pair.truth, frame, size), paint(best_last, frame, size)


def mapped_tubes(segmented: Segmented, length: int) -> dict[int, Tube]:
    """Tubes of the entities of id maps, by ascending id."""
    tubes: dict[int, list[Any]] = {}
    for frame, ids in enumerate(segmented.iter_ids()):
        for entity in describe_entities(ids):
            tubes.setdefault(entity["id"], [None] * length)[frame] = entity["segmentation"]
    return {number: (masks, float(segmented.scores[number - 1]), ENTITY) for number, masks in sorted(tubes.items())}


def tracked_tubes(frames: Sequence[TrackedFrame], length: int) -> dict[int, Tube]:
    """Tubes of the tracks that have masks, by ascending id, with mean score and most frequent category (ties: smallest)."""
    tubes: dict[int, list[Any]] = {}
    scores: dict[int, list[float]] = {}
    votes: dict[int, list[int]] = {}
    for tracked in frames:
        objects = tracked.objects
        for number, mask, score, category in zip(
            tracked.ids.tolist(), objects.masks, objects.scores, objects.categories
        ):
            if mask is not None:
                tubes.setdefault(number, [None] * length)[tracked.index] = mask
                scores.setdefault(number, []).append(float(score))
                votes.setdefault(number, []).append(int(category))
    return {
        number: (masks, float(np.mean(scores[number])), min(votes[number], key=lambda c: (-votes[number].count(c), c)))
        for number, masks in sorted(tubes.items())
    }


def paint(instances: Sequence[Instance], frame: int, size: tuple[int, int]) -> np.ndarray:
    """int32 [H, W]: 1 + index of the last instance that covers a pixel; 0 = none."""
    ids = np.zeros(size, np.int32)
    for position, instance in enumerate(instances):
        mask = instance.masks[frame] if frame < len(instance.masks) else None
        if mask is not None:
            covered = rle_decode(dict(mask))  # may have another size than the annotation
            ids[covered if covered.shape == size else resize_ids(covered, size)] = position + 1
    return ids
