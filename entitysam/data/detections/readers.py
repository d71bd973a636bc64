"""Boxes and masks of single frames from files: detections to be tracked, and annotated tracks to measure against.

| format | file |
| --- | --- |
| COCO, CocoVID, TAO | json {images: [{id, file_name}], annotations: [{image_id, bbox and/or segmentation}]}; of an image also `video_id`, `frame_index` or `frame_id`, and {videos: [{id, name}]}; of an annotation also `score`, `category_id`, `track_id` or `instance_id`, `iscrowd` |
| COCO results | json [{image_id, bbox and/or segmentation, score}]; image_id is a frame's number from 0, or its name |
| Scalabel (BDD100K MOT, MOTS) | json [{name, videoName, frameIndex, labels: [{id, category, score, box2d and/or rle}]}], or {frames: [...]}; several files in a folder |
| MOT Challenge | txt: frame (from 1), id, x, y, width, height, confidence, ... |

Ids of detections are not read by the tracker, which gives its own. Broken files are refused; numbers that mean nothing
(NaN, empty boxes) are passed on, and left out where they are used.
"""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from natsort import natsorted
from pycocotools import mask as coco_mask

from entitysam.data.images import DataError
from entitysam.data.training.instances import run_length_code
from entitysam.structures import Detections

Size = tuple[int, int]


@dataclass
class FrameRecord:
    """The objects of one frame.

    Attributes:
        name: of its picture, without folder and suffix; "" where the file has none.
        index: its number in the video, from 0; -1 where the file has none.
        file: of its picture, as the file says; "" where it does not.
        objects: what is on it.
        track_ids: of annotations, per object: any text or number; None where there is none.
        ignore: bool [N], of annotations: a crowd, in which predictions do not count.
    """

    name: str
    index: int = -1
    file: str = ""
    objects: Detections = field(default_factory=lambda: Detections.of(np.zeros((0, 4))))
    track_ids: list[Any] = field(default_factory=list)
    ignore: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))


@dataclass
class VideoRecords:
    """What a file holds.

    Attributes:
        videos: frames in order, by the name of the video; "" where the file has one video without a name.
        categories: mappings with `id` and `name`.
    """

    videos: dict[str, list[FrameRecord]]
    categories: list[dict[str, Any]] = field(default_factory=list)


def read_detections(path: str | Path) -> VideoRecords:
    """Reads a file (or a folder of Scalabel files) of any of the formats; the format is told by the contents.

    Raises:
        DataError: no such file, not one of the formats, an entry that lacks something, an image or a frame listed twice.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(path.glob("*.json"))
        if not files:
            raise DataError(f"{path}: no json files in this folder")
        return _read_scalabel([frame for file in files for frame in _scalabel_frames(_read_json(file), file)], path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.suffix.lower() in (".txt", ".csv"):
        return _read_mot(path)
    contents = _read_json(path)
    try:
        if isinstance(contents, dict) and "annotations" in contents:
            return _read_coco(contents, path)
        if isinstance(contents, list) and all("image_id" in entry for entry in contents):
            return _read_results(contents, path)
    except (KeyError, TypeError, ValueError) as error:
        raise _refused(path, error) from error
    return _read_scalabel(_scalabel_frames(contents, path), path)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: broken JSON ({error})") from error


def _refused(path: Path, error: Exception) -> Exception:
    if isinstance(error, DataError):
        return error
    reason = f"an entry lacks {error}" if isinstance(error, KeyError) else str(error)
    return DataError(f"{path}: not a file of detections: {reason}")


def _read_coco(contents: Mapping[str, Any], path: Path) -> VideoRecords:
    names = {video["id"]: str(video.get("name", video["id"])) for video in contents.get("videos", [])}
    frames: dict[Any, FrameRecord] = {}
    objects: dict[Any, list[Mapping[str, Any]]] = {}
    sizes: dict[Any, Size | None] = {}
    videos: dict[str, list[FrameRecord]] = {}
    for image in contents.get("images", []):
        key, file = image["id"], str(image["file_name"])
        if key in frames:
            raise DataError(f"{path}: image id {key} is there twice")
        index = int(image.get("frame_index", image.get("frame_id", -1)))
        frames[key], objects[key] = FrameRecord(Path(file).stem, index, file), []
        sizes[key] = (int(image["height"]), int(image["width"])) if "height" in image else None
        videos.setdefault(names.get(image.get("video_id"), ""), []).append(frames[key])
    for annotation in contents["annotations"]:
        if annotation["image_id"] not in frames:
            raise DataError(f"{path}: image_id {annotation['image_id']} of an annotation is not in 'images'")
        objects[annotation["image_id"]].append(annotation)
    for key, frame in frames.items():
        _fill(frame, objects[key], sizes[key], path)
    return VideoRecords(
        {name: _in_order(listed, path) for name, listed in videos.items()}, contents.get("categories", [])
    )


def _read_results(contents: Sequence[Mapping[str, Any]], path: Path) -> VideoRecords:
    objects: dict[Any, list[Mapping[str, Any]]] = {}
    for entry in contents:
        objects.setdefault(entry["image_id"], []).append(entry)
    frames = []
    for key, listed in objects.items():
        is_number = isinstance(key, int)
        frame = FrameRecord("" if is_number else Path(str(key)).stem, key if is_number else -1)
        _fill(frame, listed, None, path)
        frames.append(frame)
    return VideoRecords({"": _in_order(frames, path)})


def _fill(frame: FrameRecord, listed: Sequence[Mapping[str, Any]], size: Size | None, path: Path) -> None:
    """Puts the COCO annotations `listed` on a frame of `size` (H, W; None where the file does not say)."""
    boxes, masks = [], []
    for annotation in listed:
        mask = _mask(annotation.get("segmentation"), size, f"{path}: image {frame.file or frame.name or frame.index}")
        if mask is None and "bbox" not in annotation:
            raise KeyError("bbox")
        x, y, width, height = annotation["bbox"] if "bbox" in annotation else coco_mask.toBbox(mask).tolist()
        boxes.append([x, y, x + width, y + height])
        masks.append(mask)
    scores = [_number(annotation.get("score", 1.0)) for annotation in listed]
    categories = [int(annotation.get("category_id", 0)) for annotation in listed]
    frame.objects = Detections.of(boxes, scores, categories, masks)
    frame.track_ids = [annotation.get("track_id", annotation.get("instance_id")) for annotation in listed]
    frame.ignore = np.array([bool(annotation.get("iscrowd", 0)) for annotation in listed], bool)


def _mask(shape: Any, size: Size | None, where: str) -> dict[str, Any] | None:
    """A compressed code with text counts; None where there is no shape, or polygons without a size to draw them at."""
    if not shape or (size is None and not isinstance(shape, dict)):
        return None
    try:
        code = run_length_code(shape, *(size or shape["size"]))
    except (TypeError, KeyError, ValueError) as error:
        raise DataError(f"{where}: unusable segmentation: {error}") from error
    counts = code["counts"]
    return {"size": [int(n) for n in code["size"]], "counts": counts.decode() if isinstance(counts, bytes) else counts}


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)  # null is how JSON writers spell NaN


def _scalabel_frames(contents: Any, path: Path) -> list[dict[str, Any]]:
    frames = contents.get("frames") if isinstance(contents, dict) else contents
    if not isinstance(frames, list) or not all(isinstance(frame, dict) and "name" in frame for frame in frames):
        raise DataError(f"{path}: not a file of detections (COCO, TAO, Scalabel json or MOT txt)")
    return frames


def _read_scalabel(contents: Sequence[Mapping[str, Any]], path: Path) -> VideoRecords:
    listed = [frame.get("labels") or [] for frame in contents]
    try:
        names = sorted({str(label["category"]) for labels in listed for label in labels})
        number_of = {name: number for number, name in enumerate(names, start=1)}
        videos: dict[str, list[FrameRecord]] = {}
        for frame, labels in zip(contents, listed):
            video = str(frame.get("videoName") or "")
            name = str(frame["name"])
            record = FrameRecord(Path(name).stem, int(frame.get("frameIndex", -1)), f"{video}/{name}".lstrip("/"))
            _fill(record, [_as_coco(label, number_of) for label in labels], None, path)
            videos.setdefault(video, []).append(record)
        ordered = {video: _in_order(frames, path) for video, frames in videos.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise _refused(path, error) from error
    return VideoRecords(ordered, [{"id": number, "name": name} for name, number in number_of.items()])


def _as_coco(label: Mapping[str, Any], number_of: Mapping[str, int]) -> dict[str, Any]:
    """A Scalabel label as a COCO annotation; corners of boxes are points, as in the published BDD100K evaluation."""
    annotation: dict[str, Any] = {
        "category_id": number_of[str(label["category"])],
        "score": label.get("score", 1.0),
        "track_id": label.get("id"),
        "iscrowd": bool((label.get("attributes") or {}).get("crowd")),
        "segmentation": label.get("rle"),
    }
    if label.get("box2d"):
        corners = [_number(label["box2d"][key]) for key in ("x1", "y1", "x2", "y2")]
        annotation["bbox"] = [*corners[:2], corners[2] - corners[0], corners[3] - corners[1]]
    return annotation


def _read_mot(path: Path) -> VideoRecords:
    """MOT Challenge text: tracks of annotations have ids, detections -1."""
    rows: dict[int, list[Mapping[str, Any]]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for number, line in enumerate(csv.reader(file), start=1):
            if not line:
                continue
            try:
                frame, track, *box = (float(cell) for cell in line[:6])
                score = float(line[6]) if len(line) > 6 else 1.0
                bbox = dict(zip("xywh", box, strict=True))
            except ValueError as error:
                raise DataError(f"{path}: line {number}: not frame, id, x, y, width, height, confidence") from error
            entry = {"bbox": [*bbox.values()], "score": score, "track_id": None if track < 0 else int(track)}
            rows.setdefault(int(frame) - 1, []).append(entry)
    frames = []
    for index, listed in rows.items():
        frame_of = FrameRecord("", index)
        _fill(frame_of, listed, None, path)
        frames.append(frame_of)
    return VideoRecords({"": _in_order(frames, path)})


def _in_order(frames: Iterable[FrameRecord], path: Path) -> list[FrameRecord]:
    """By number where the frames have one, else by name in natural order.

    Raises:
        DataError: a frame is there twice.
    """
    ordered = natsorted(frames, key=lambda frame: (frame.index, frame.name))
    for before, after in pairwise(ordered):
        if (before.index, before.name) == (after.index, after.name):
            raise DataError(f"{path}: frame {after.name or after.index} is there twice")
    return ordered
