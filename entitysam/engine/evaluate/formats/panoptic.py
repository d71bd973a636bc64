"""Panoptic predictions: `pan_pred/<video>/<frame>.png` (id = R + 256 G + 65536 B) and `pred.json`."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from entitysam.engine.evaluate.formats.base import (
    ENTITY,
    Entry,
    PredictionError,
    PredictionFormat,
    Segmented,
    read_index_file,
)
from entitysam.evaluation import (
    EvaluationError,
    Instance,
    InstanceVideo,
    PanopticSequence,
    PanopticVideo,
    TrackedVideo,
    Tracks,
)
from entitysam.evaluation.panoptic_png import read_panoptic_png
from entitysam.io.files import whole_file
from entitysam.io.id_maps import write_ids
from entitysam.ops import rle_encode
from entitysam.structures import Video

MAPS, INDEX = "pan_pred", "pred.json"


class PanopticFormat(PredictionFormat):
    """Videos, or images (`file_name` and `segments_info` then stand in the annotation itself, as in COCO)."""

    input_types = (PanopticVideo, InstanceVideo, TrackedVideo)

    def write(self, video: Video, segmented: Segmented, categories: np.ndarray | None = None) -> Entry:
        frames = []
        for name, ids in zip(video.annotation["names"], segmented.iter_ids(), strict=True):
            path = self.folder / MAPS / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_ids(path, ids)
            frames.append({"file_name": path.name, "segments_info": segments_info(ids)})
        scores = segmented.scores
        for frame in frames:
            for segment in frame["segments_info"]:
                segment["score"] = round(float(scores[segment["id"] - 1]), 6)
                if categories is not None:
                    segment["category_id"] = int(categories[segment["id"] - 1])
        if self.dataset.is_images:
            return {"image_id": video.annotation["key"], **frames[0]}
        return {"video_id": video.annotation["key"], "annotations": frames}

    def write_index(self, entries: Sequence[Entry]) -> None:
        with whole_file(self.folder / INDEX) as temporary:
            temporary.write_text(json.dumps({"annotations": list(entries)}), encoding="utf-8")

    def read_index(self) -> dict[str, list[Entry]]:
        path, key = self.folder / INDEX, "image_id" if self.dataset.is_images else "video_id"
        contents = read_index_file(path)
        entries: dict[str, list[Entry]] = {}
        try:
            for entry in contents["annotations"]:
                entries.setdefault(str(entry[key]), []).append(entry)
        except (KeyError, TypeError) as error:
            raise PredictionError(f"{path}: not a panoptic prediction file (an entry lacks {error})") from error
        return entries

    def pair(self, video: Video, entry: Entry | None, kind: type) -> PanopticVideo | InstanceVideo | TrackedVideo:
        truth = PanopticSequence(video.annotation["segments"], _reader(video.annotation["mask_files"]))
        prediction = None if entry is None else self.sequence(video, entry)
        if kind is PanopticVideo:
            return PanopticVideo(video.video_id, truth, prediction)
        if prediction is None:
            raise EvaluationError(f"video {video.video_id}: not predicted")
        if kind is TrackedVideo:
            sides = (boxes(truth, self.class_agnostic), boxes(prediction, self.class_agnostic))
            return TrackedVideo(video.video_id, *sides)
        return InstanceVideo(
            video.video_id,
            tubes(truth, self.class_agnostic),
            tubes(prediction, self.class_agnostic),
        )

    def sequence(self, video: Video, entry: Entry) -> PanopticSequence:
        """What was predicted. Frames are paired by position and maps opened under the ground truth's names, as in the published evaluators."""
        frames = [entry] if self.dataset.is_images else entry.get("annotations")
        where = f"video {video.video_id}"
        if not isinstance(frames, list):
            raise PredictionError(f"{where}: its entry in {INDEX} has no 'annotations'")
        if len(frames) != len(video):
            raise PredictionError(f"{where}: {len(frames)} frames predicted, {len(video)} frames annotated")
        names = video.annotation["names"]
        segments = []
        for index, (frame, name) in enumerate(zip(frames, names)):
            if "segments_info" not in frame:
                raise PredictionError(f"{where}, frame {index}: no 'segments_info' in {INDEX}")
            self.warnings["predicted frames named otherwise than the annotated ones, paired by position"] += (
                Path(str(frame.get("file_name", name))).stem != Path(name).stem
            )
            segments.append(frame["segments_info"])
        return PanopticSequence(segments, _reader([self.folder / MAPS / name for name in names]))

    def maps(self, video: Video, entry: Entry | None, frame: int) -> tuple[np.ndarray, np.ndarray]:
        truth = read_panoptic_png(video.annotation["mask_files"][frame])
        if entry is None:
            return truth, np.zeros_like(truth)
        return truth, self.sequence(video, entry).read(frame)


def segments_info(ids: np.ndarray) -> list[dict[str, Any]]:
    """The JSON entries of a map [H, W] of entities 1..n: id, category_id, iscrowd, area in pixels, bbox [x, y, w, h]."""
    areas = np.bincount(ids.ravel())
    found = []
    for index, place in enumerate(ndimage.find_objects(ids)):
        if place is not None:
            rows, columns = place
            box = [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start]
            segment = {"id": index + 1, "category_id": ENTITY, "iscrowd": 0, "area": int(areas[index + 1])}
            found.append({**segment, "bbox": box})
    return found


def tubes(sequence: PanopticSequence, class_agnostic: bool) -> list[Instance]:
    """The segments of a panoptic video as mask tubes, in order of first listing."""
    first: dict[int, Mapping[str, Any]] = {}
    masks: dict[int, list[Any]] = {}
    for frame, segments in enumerate(sequence.segments):
        ids = sequence.read(frame)
        for segment in segments:
            number = int(segment["id"])
            first.setdefault(number, segment)
            tube = masks.setdefault(number, [None] * len(sequence))
            tube[frame] = rle_encode(ids == number)
    return [
        Instance(
            category_id=ENTITY if class_agnostic else int(segment["category_id"]),
            masks=masks[number],
            score=float(segment.get("score", 1.0)),
            crowd=segment.get("iscrowd", 0) == 1,
            annotation_id=number,
        )
        for number, segment in first.items()
    ]


def boxes(sequence: PanopticSequence, class_agnostic: bool) -> Tracks:
    """The boxes of a panoptic video's segments."""
    listed = [(frame, segment) for frame, segments in enumerate(sequence.segments) for segment in segments]
    category = [ENTITY if class_agnostic else int(segment["category_id"]) for _, segment in listed]
    rows = [[frame, segment["id"], c, *segment["bbox"]] for (frame, segment), c in zip(listed, category)]
    return Tracks.from_rows(rows, [segment.get("iscrowd", 0) == 1 for _, segment in listed])


def _reader(files: Sequence[Path]) -> Callable[[int], np.ndarray]:
    return lambda frame: read_panoptic_png(files[frame])
