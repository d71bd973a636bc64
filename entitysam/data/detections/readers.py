"""Reads boxes and masks of frames from files: detections to be tracked, or annotated tracks to evaluate against.

| format | file |
| --- | --- |
| COCO, CocoVID, TAO | json {images: [{id, file_name}], annotations: [{image_id, bbox and/or segmentation}]}; of an image also `video_id`, `frame_index` or `frame_id` (from 0), and {videos: [{id, name}]}; of an annotation also `score`, `category_id`, `track_id` or `instance_id`, `iscrowd` |
| COCO results | json [{image_id, bbox and/or segmentation, score}]; image_id is the number of a frame, or its name |
| Scalabel (BDD100K MOT, MOTS) | json [{name, videoName, frameIndex, labels: [{id, category, score, box2d and/or rle}]}], or {frames: [...]}; several files in a folder |
| MOT Challenge | txt: frame (from 1), id, x, y, width, height, confidence, ... (`mot.py`) |

The tracker does not read the ids of detections: it assigns its own. Broken files raise; boxes and scores that are not
finite or empty are kept here and left out by the tracker. A mask that cannot be used raises, or is a warning where the
object has a box. `matching.py` says which frame of a clip a record belongs to.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from natsort import natsorted
from pycocotools import mask as coco_mask

from entitysam.data.detections.mot import read_mot
from entitysam.data.detections.records import FrameRecord, VideoRecords
from entitysam.data.images import DataError, frame_name
from entitysam.data.index import match_schema, parse_json
from entitysam.data.masks import MaskError, read_mask
from entitysam.data.schemas import DetectionFile, DetectionResults, ScalabelFile, ScalabelFrames
from entitysam.structures import Detections

__all__ = ["FrameRecord", "VideoRecords", "read_detections"]

Size = tuple[int, int]


def read_detections(path: str | Path) -> VideoRecords:
    """Reads a file (or a folder of Scalabel files) of any of the formats; the contents tell the format.

    Raises:
        DataError: no such file, not one of the formats, an entry that lacks something, an image or a frame listed twice.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(path.glob("*.json"))
        if not files:
            raise DataError(f"{path}: no json files in this folder")
        return _read_scalabel([frame for file in files for frame in _scalabel_frames(parse_json(file), file)], path)
    if path.suffix.lower() in (".txt", ".csv"):
        found = _read_mot(path)
    else:
        found = _read_json(path)
    if not any(len(frame.objects) for frames in found.videos.values() for frame in frames):
        found.warnings.append(f"{path}: no detections in it")
    return found


def _read_json(path: Path) -> VideoRecords:
    contents = parse_json(path)
    if isinstance(contents, dict) and "annotations" in contents:
        return _read_coco(match_schema(contents, DetectionFile, path), path)
    if isinstance(contents, list) and all(isinstance(entry, dict) and "image_id" in entry for entry in contents):
        return _read_results(match_schema(contents, DetectionResults, path), path)
    return _read_scalabel(_scalabel_frames(contents, path), path)


def _read_coco(contents: DetectionFile, path: Path) -> VideoRecords:
    found = VideoRecords({}, [{**category} for category in contents.get("categories", [])])
    names = {video["id"]: str(video.get("name", video["id"])) for video in contents.get("videos", [])}
    frames: dict[Any, FrameRecord] = {}
    objects: dict[Any, list[Any]] = {}
    sizes: dict[Any, Size | None] = {}
    for image in contents.get("images", []):
        key, file = image["id"], image["file_name"]
        if key in frames:
            raise DataError(f"{path}: image id {key} is there twice")
        number = image.get("frame_id") if image.get("frame_index") is None else image.get("frame_index")
        frames[key], objects[key] = FrameRecord(frame_name(file), number, file), []
        height, width = image.get("height"), image.get("width")
        sizes[key] = (height, width) if height and width else None
        video = image.get("video_id")
        found.videos.setdefault("" if video is None else names.get(video, ""), []).append(frames[key])
    for annotation in contents["annotations"]:
        if annotation["image_id"] not in frames:
            raise DataError(f"{path}: image_id {annotation['image_id']} of an annotation is not in 'images'")
        objects[annotation["image_id"]].append(annotation)
    for key, frame in frames.items():
        _fill(frame, objects[key], sizes[key], path, found.warnings)
    return _in_order(found, path)


def _read_results(contents: Sequence[Mapping[str, Any]], path: Path) -> VideoRecords:
    found = VideoRecords({"": []}, number_key="image_id")
    objects: dict[Any, list[Mapping[str, Any]]] = {}
    for entry in contents:
        objects.setdefault(entry["image_id"], []).append(entry)
    for key, listed in objects.items():
        frame = FrameRecord("", key) if isinstance(key, int) else FrameRecord(frame_name(key))
        _fill(frame, listed, None, path, found.warnings)
        found.videos[""].append(frame)
    return _in_order(found, path)


def _scalabel_frames(contents: Any, path: Path) -> Sequence[Mapping[str, Any]]:
    if isinstance(contents, dict) and "frames" in contents:
        return match_schema(contents, ScalabelFile, path)["frames"]
    if isinstance(contents, list) and all(isinstance(frame, dict) and "name" in frame for frame in contents):
        return match_schema(contents, ScalabelFrames, path)
    raise DataError(f"{path}: not a file of detections (COCO, TAO, Scalabel json or MOT txt)")


def _read_scalabel(contents: Sequence[Mapping[str, Any]], path: Path) -> VideoRecords:
    listed = [frame.get("labels") or [] for frame in contents]
    names = sorted({label["category"] for labels in listed for label in labels})
    number_of = {name: number for number, name in enumerate(names, start=1)}
    found = VideoRecords({}, [{"id": number, "name": name} for name, number in number_of.items()])
    for frame, labels in zip(contents, listed):
        video, name = frame.get("videoName") or "", frame["name"]
        record = FrameRecord(frame_name(name), frame.get("frameIndex"), f"{video}/{name}" if video else name)
        _fill(record, [_as_coco(label, number_of) for label in labels], None, path, found.warnings)
        found.videos.setdefault(video, []).append(record)
    return _in_order(found, path)


def _as_coco(label: Mapping[str, Any], number_of: Mapping[str, int]) -> dict[str, Any]:
    """A Scalabel label as a COCO annotation; corners of boxes are points, as in the published BDD100K evaluation."""
    annotation: dict[str, Any] = {
        "category_id": number_of[label["category"]],
        "score": label.get("score", 1.0),
        "track_id": label.get("id"),
        "iscrowd": bool((label.get("attributes") or {}).get("crowd")),
        "segmentation": label.get("rle"),
    }
    if label.get("box2d"):
        x1, y1, x2, y2 = (_number(label["box2d"][key]) for key in ("x1", "y1", "x2", "y2"))
        annotation["bbox"] = [x1, y1, x2 - x1, y2 - y1]
    return annotation


def _read_mot(path: Path) -> VideoRecords:
    found = VideoRecords({"": []}, number_key="mot")
    for number, listed in read_mot(path).items():
        frame = FrameRecord("", number)
        _fill(frame, listed, None, path, found.warnings)
        found.videos[""].append(frame)
    return _in_order(found, path)


def _fill(
    frame: FrameRecord, listed: Sequence[Mapping[str, Any]], size: Size | None, path: Path, warnings: list[str]
) -> None:
    """Puts the COCO annotations `listed` on a frame of `size` (H, W); None where the file has no size."""
    boxes, masks = [], []
    for position, annotation in enumerate(listed):
        where = f"{path}: frame {frame.label}, object {annotation.get('id', position + 1)}"
        shape, box = annotation.get("segmentation"), annotation.get("bbox")
        mask = _mask(shape, size, where, box is not None, warnings)
        if mask is None and box is None:
            raise DataError(f"{where}: lacks 'bbox'")
        x, y, width, height = map(_number, box) if box is not None else coco_mask.toBbox(mask).tolist()
        boxes.append([x, y, x + width, y + height])
        masks.append(mask)
    scores = [_number(annotation.get("score", 1.0)) for annotation in listed]
    categories = [annotation.get("category_id") or 0 for annotation in listed]
    frame.objects = Detections.of(boxes, scores, categories, masks)
    frame.track_ids = [annotation.get("track_id", annotation.get("instance_id")) for annotation in listed]
    frame.ignore = np.array([bool(annotation.get("iscrowd", 0)) for annotation in listed], bool)


def _mask(shape: Any, size: Size | None, where: str, has_box: bool, warnings: list[str]) -> dict[str, Any] | None:
    """A compressed code; None where there is no shape, or where the box has to do."""
    if not shape:
        return None
    try:
        return read_mask(shape, *(size or (None, None)))
    except MaskError as error:
        is_polygon_without_size = size is None and isinstance(shape, list)
        if not has_box:
            raise DataError(f"{where}: unusable segmentation: {error}") from error
        if not is_polygon_without_size:
            warnings.append(f"{where}: unusable segmentation, only its box is used: {error}")
        return None


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)  # JSON writers spell NaN as null


def _in_order(found: VideoRecords, path: Path) -> VideoRecords:
    """Sorts the frames of every video by number where they have one, else by name in natural order.

    Raises:
        DataError: a frame is there twice.
    """
    found.videos = {video: _sorted(frames, path) for video, frames in found.videos.items()}
    return found


def _sorted(frames: Iterable[FrameRecord], path: Path) -> list[FrameRecord]:
    ordered = natsorted(frames, key=lambda frame: (-1 if frame.number is None else frame.number, frame.name))
    for before, after in pairwise(ordered):
        if (before.number, before.name) == (after.number, after.name):
            raise DataError(f"{path}: frame {after.label} is there twice")
    return ordered
