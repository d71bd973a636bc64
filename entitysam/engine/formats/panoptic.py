"""Panoptic predictions: `pan_pred/<video>/<frame>.png` (id = R + 256 G + 65536 B) and `pred.json`."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from entitysam.engine.formats.base import (
    ENTITY,
    Entry,
    PredictionError,
    PredictionFormat,
    Segmented,
    read_index_file,
)
from entitysam.engine.formats.segments import ImageIndex, PanopticEntry, PanopticFrame, Segment, VideoIndex
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
from entitysam.io.json_files import check_type
from entitysam.io.paths import join_inside
from entitysam.ops import rle_encode
from entitysam.structures import Video

MAPS, INDEX = "pan_pred", "pred.json"


class PanopticFormat(PredictionFormat):
    """Videos, or images (whose annotation itself has `file_name` and `segments_info`, as in COCO)."""

    input_types = (PanopticVideo, InstanceVideo, TrackedVideo)

    def map_files(self, video: Video) -> list[Path]:
        where = f"video {video.video_id}"
        return [join_inside(self.folder / MAPS, name, where) for name in video.annotation["names"]]

    def write(self, video: Video, segmented: Segmented, categories: np.ndarray | None = None) -> Entry:
        frames: list[dict[str, Any]] = []
        for path, ids in zip(self.map_files(video), segmented.iter_ids(), strict=True):
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
        path = self.folder / INDEX
        key, kind = ("image_id", ImageIndex) if self.dataset.is_images else ("video_id", VideoIndex)
        contents = check_type(read_index_file(path), kind, f"{path}: not a panoptic prediction file", PredictionError)
        entries: dict[str, list[Entry]] = {}
        for entry in contents["annotations"]:
            entries.setdefault(str(entry[key]), []).append(entry)
        return entries

    def pair(self, video: Video, entry: Entry | None, kind: type) -> PanopticVideo | InstanceVideo | TrackedVideo:
        truth = self._truth(video)
        prediction = None if entry is None else self.sequence(video, entry)
        if kind is PanopticVideo:
            return PanopticVideo(video.video_id, truth, prediction)
        if prediction is None:
            raise EvaluationError(f"video {video.video_id}: not predicted")
        if kind is TrackedVideo:
            where = f"video {video.video_id}"
            return TrackedVideo(
                video.video_id,
                boxes(truth, self.class_agnostic, f"{where}, ground truth"),
                boxes(prediction, self.class_agnostic, f"{where}, prediction"),
            )
        return InstanceVideo(
            video.video_id,
            tubes(truth, self.class_agnostic),
            tubes(prediction, self.class_agnostic),
        )

    def _truth(self, video: Video) -> PanopticSequence:
        where = f"video {video.video_id}, ground truth"
        segments = [
            check_type(frame, list[Segment], f"{where}, frame {index}", EvaluationError)
            for index, frame in enumerate(video.annotation["segments"])
        ]
        files, read = video.annotation["mask_files"], _truth_reader(video)
        return PanopticSequence(segments, lambda frame: read(files[frame]))

    def sequence(self, video: Video, entry: Entry) -> PanopticSequence:
        """The prediction of a video. As in the published evaluators, frames are paired with the annotated ones by
        position, and maps are opened under the annotated names.

        Raises:
            PredictionError: another number of frames, values of the wrong type.
        """
        where = f"video {video.video_id}"
        if self.dataset.is_images:
            frames = [entry]
        else:
            frames = check_type(entry, PanopticEntry, f"{INDEX}: {where}", PredictionError)["annotations"]
        if len(frames) != len(video):
            raise PredictionError(f"{where}: {len(frames)} frames predicted, {len(video)} frames annotated")
        names = video.annotation["names"]
        segments = []
        for index, (frame, name) in enumerate(zip(frames, names)):
            checked = check_type(frame, PanopticFrame, f"{INDEX}: {where}, frame {index}", PredictionError)
            self.warnings["predicted frames whose names differ from the annotated ones, paired by position"] += (
                Path(str(frame.get("file_name", name))).stem != Path(name).stem
            )
            segments.append(checked["segments_info"])
        return PanopticSequence(segments, _reader([self.folder / MAPS / name for name in names]))

    def maps(self, video: Video, entry: Entry | None, frame: int) -> tuple[np.ndarray, np.ndarray]:
        truth = _truth_reader(video)(video.annotation["mask_files"][frame])
        if entry is None:
            return truth, np.zeros_like(truth)
        return truth, self.sequence(video, entry).read(frame)


def segments_info(ids: np.ndarray) -> list[dict[str, Any]]:
    """JSON entries of a map [H, W] of entities 1..n: id, category_id, iscrowd, area in pixels, bbox [x, y, w, h]."""
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
            category_id=ENTITY if class_agnostic else int(segment.get("category_id", -1)),
            masks=masks[number],
            score=float(segment.get("score", 1.0)),
            crowd=segment.get("iscrowd", 0) == 1,
            annotation_id=number,
        )
        for number, segment in first.items()
    ]


def boxes(sequence: PanopticSequence, class_agnostic: bool, where: str) -> Tracks:
    """The boxes of a panoptic video's segments.

    Raises:
        EvaluationError: a segment without `bbox` or `category_id`; the message starts with `where`.
    """
    needed = ("bbox",) if class_agnostic else ("bbox", "category_id")
    rows, crowd = [], []
    for frame, segments in enumerate(sequence.segments):
        for segment in segments:
            missing = next((key for key in needed if key not in segment), None)
            if missing:
                raise EvaluationError(f"{where}, frame {frame}: segment {segment['id']} has no '{missing}'")
            category = ENTITY if class_agnostic else int(segment["category_id"])
            rows.append([frame, segment["id"], category, *segment["bbox"]])
            crowd.append(segment.get("iscrowd", 0) == 1)
    return Tracks.from_rows(rows, crowd)


def _truth_reader(video: Video) -> Callable[[Path], np.ndarray]:
    """What reads an annotated map of a video."""
    return video.annotation.get("read", read_panoptic_png)


def _reader(files: Sequence[Path]) -> Callable[[int], np.ndarray]:
    return lambda frame: read_panoptic_png(files[frame])
