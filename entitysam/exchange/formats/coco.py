"""COCO for videos: the json of YouTube-VIS (a track per annotation) and CocoVID (an object of a frame per annotation).

Keys that the formats do not have carry what they lack: `score`, `scores`, `track_id`, `fps`, `times`. Other programs ignore them.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from typing_extensions import NotRequired, TypedDict

from entitysam.exchange.video import (
    Entity,
    EntityId,
    FrameIndex,
    Instance,
    Side,
    TrackedVideo,
    check_video,
    checked_mask,
    new_file,
)
from entitysam.io.files import whole_file
from entitysam.io.json_files import Box, Finite, Integer, check_type, load_json
from entitysam.io.readers.base import InputError

Key = int | str


class _Category(TypedDict):
    id: Key
    name: str


class _Video(TypedDict):
    id: Key
    width: Side
    height: Side
    file_names: list[str]
    name: NotRequired[str]
    fps: NotRequired[float | None]
    times: NotRequired[list[Finite | None]]
    source: NotRequired[dict[str, Any] | None]


class _Track(TypedDict):
    id: Integer
    video_id: Key
    category_id: Key
    segmentations: NotRequired[list[Any]]
    bboxes: NotRequired[list[Box | None]]
    score: NotRequired[Finite | None]
    scores: NotRequired[list[Finite | None]]
    track_id: NotRequired[EntityId]


class _YouTubeVIS(TypedDict):
    videos: list[_Video]
    categories: list[_Category]
    annotations: list[_Track] | None


def write_youtube_vis(videos: Sequence[TrackedVideo], out: Path) -> None:
    """One json for several videos: {videos, categories, annotations: [{id, video_id, segmentations: [code or null]}]}."""
    category_of = _categories(videos)
    listed: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, video in enumerate(videos, start=1):
        size = {"width": video.width, "height": video.height}
        described = {"id": number, **size, "length": len(video.frames), "name": video.id}
        files = [f"{video.id}/{frame}.jpg" for frame in video.frames]
        listed.append({**described, "file_names": files, **_timing(video)})
        for entity in video.entities:
            row = [entity.instances.get(index) for index in range(len(video.frames))]
            annotation: dict[str, Any] = {
                "id": len(annotations) + 1,
                "track_id": entity.id,
                "video_id": number,
                "iscrowd": 0,
                **size,
            }
            annotation |= {"category_id": category_of[entity.label], "length": len(row), "score": entity.score}
            annotation["segmentations"] = [None if found is None else found.mask for found in row]
            annotation["bboxes"] = [None if found is None else list(found.box) for found in row]
            annotation["areas"] = [None if found is None else found.area for found in row]
            annotation["scores"] = [None if found is None else found.score for found in row]
            annotations.append(annotation)
    _write(out, {"videos": listed, "categories": _listed(category_of), "annotations": annotations})


def read_youtube_vis(path: Path) -> list[TrackedVideo]:
    """The videos of a YouTube-VIS json.

    Raises:
        InputError: a value that cannot be used.
    """
    contents = check_type(load_json(path), _YouTubeVIS, str(path), InputError)
    name_of = _names(contents["categories"])
    videos = {}
    for video in contents["videos"]:
        frames = [Path(name).stem for name in video["file_names"]]
        title = video.get("name") or (Path(video["file_names"][0]).parent.name if frames else "") or str(video["id"])
        videos[video["id"]] = TrackedVideo(title, video["width"], video["height"], frames, [], video.get("fps"),
                                           video.get("times") or [], video.get("source"))  # fmt: skip
    for annotation in contents["annotations"] or []:
        where = f"{path}: annotation {annotation['id']}"
        video = _found(videos, annotation["video_id"], f"{where}: video_id")
        entity = Entity(
            annotation.get("track_id", len(video.entities) + 1),
            1.0 if (score := annotation.get("score")) is None else score,
            _found(name_of, annotation["category_id"], f"{where}: category_id"),
        )
        masks, boxes = annotation.get("segmentations"), annotation.get("bboxes")
        scores = annotation.get("scores") or [None] * len(video.frames)
        for kind, values in (("segmentations", masks), ("bboxes", boxes), ("scores", scores)):
            if values is not None and len(values) != len(video.frames):
                raise InputError(f"{where}: {len(values)} {kind} for {len(video.frames)} frames")
        for index, frame_score in enumerate(scores):
            value = entity.score if frame_score is None else frame_score
            if masks is not None and masks[index] is not None:
                code = checked_mask(masks[index], (video.width, video.height), f"{where}: frame {index}")
                entity.instances[index] = Instance.of_mask(code, value)
            elif boxes is not None and boxes[index] is not None:
                entity.instances[index] = Instance(tuple(boxes[index]), value)  # type: ignore[arg-type]
        video.entities.append(entity)
    return [_checked(video, path) for video in videos.values()]


class _CocoVideo(TypedDict):
    id: Key
    name: NotRequired[str]
    fps: NotRequired[float | None]
    source: NotRequired[dict[str, Any] | None]


class _Image(TypedDict):
    id: Key
    video_id: Key
    file_name: str
    width: Side
    height: Side
    frame_id: NotRequired[FrameIndex]
    time: NotRequired[Finite | None]


class _Object(TypedDict):
    id: Integer
    image_id: Key
    category_id: Key
    bbox: NotRequired[Box]
    segmentation: NotRequired[Any]
    instance_id: NotRequired[Integer]
    track_id: NotRequired[Integer]
    score: NotRequired[Finite | None]


class _CocoVID(TypedDict):
    videos: list[_CocoVideo]
    images: list[_Image]
    categories: list[_Category]
    annotations: list[_Object]


def write_coco_vid(videos: Sequence[TrackedVideo], out: Path) -> None:
    """One json for several videos: {videos, images, categories, annotations: [{image_id, instance_id, segmentation}]}."""
    category_of = _categories(videos)
    listed: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, video in enumerate(videos, start=1):
        size = {"width": video.width, "height": video.height}
        scores = {str(entity.id): entity.score for entity in video.entities}
        extra = {"fps": video.fps, "source": video.source, "scores": scores}
        listed.append({"id": number, "name": video.id, **size, **extra})
        for index, (frame, time, found) in enumerate(zip(video.frames, video.times, video.by_frame(), strict=True)):
            image = {"id": len(images) + 1, "video_id": number, "frame_id": index, **size}
            images.append({**image, "file_name": f"{video.id}/{frame}.jpg", "time": time})
            for entity, instance in found:
                annotation: dict[str, Any] = {"id": len(annotations) + 1, "image_id": len(images), "video_id": number}
                annotation["iscrowd"] = 0
                annotation |= {"instance_id": entity.id, "category_id": category_of[entity.label]}
                annotation |= {"bbox": list(instance.box), "area": instance.area, "score": instance.score}
                annotations.append(
                    annotation if instance.mask is None else {**annotation, "segmentation": instance.mask}
                )
    _write(out, {"videos": listed, "images": images, "categories": _listed(category_of), "annotations": annotations})


def read_coco_vid(path: Path) -> list[TrackedVideo]:
    """The videos of a CocoVID json.

    Raises:
        InputError: a value that cannot be used.
    """
    raw = load_json(path)
    contents = check_type(raw, _CocoVID, str(path), InputError)
    name_of = _names(contents["categories"])
    images: dict[Key, list[_Image]] = {video["id"]: [] for video in contents["videos"]}
    for image in contents["images"]:
        _found(images, image["video_id"], f"{path}: image {image['id']}: video_id").append(image)
    videos: dict[Key, TrackedVideo] = {}
    place_of: dict[Key, tuple[Key, int]] = {}
    for video, described in zip(contents["videos"], raw["videos"]):
        rows = sorted(images[video["id"]], key=lambda image: image.get("frame_id", 0))
        if not rows:
            continue
        frames, size = [Path(image["file_name"]).stem for image in rows], (rows[0]["width"], rows[0]["height"])
        title = video.get("name") or str(video["id"])
        videos[video["id"]] = TrackedVideo(title, *size, frames, [], video.get("fps"),
                                           [image.get("time") for image in rows], video.get("source"))  # fmt: skip
        place_of |= {image["id"]: (video["id"], index) for index, image in enumerate(rows)}
        images[video["id"]] = described.get("scores") if isinstance(described.get("scores"), dict) else {}
    entities: dict[tuple[Key, int], Entity] = {}
    for annotation in contents["annotations"]:
        where = f"{path}: annotation {annotation['id']}"
        key, index = _found(place_of, annotation["image_id"], f"{where}: image_id")
        number = annotation.get("instance_id", annotation.get("track_id"))
        if number is None:
            raise InputError(f"{where}: no 'instance_id'")
        entity = entities.get((key, number))
        if entity is None:
            name = _found(name_of, annotation["category_id"], f"{where}: category_id")
            score = images[key].get(str(number), 1.0)  # type: ignore[attr-defined]
            entity = entities[key, number] = Entity(number, score if isinstance(score, float) else 1.0, name)
            videos[key].entities.append(entity)
        value = 1.0 if (score := annotation.get("score")) is None else score
        if index in entity.instances:
            raise InputError(f"{where}: entity {number} is on its frame twice")
        if annotation.get("segmentation"):
            size = videos[key].width, videos[key].height
            entity.instances[index] = Instance.of_mask(checked_mask(annotation["segmentation"], size, where), value)
        elif "bbox" in annotation:
            entity.instances[index] = Instance(tuple(annotation["bbox"]), value)  # type: ignore[arg-type]
        else:
            raise InputError(f"{where}: neither 'segmentation' nor 'bbox'")
    return [_checked(video, path) for video in videos.values()]


def _checked(video: TrackedVideo, path: Path) -> TrackedVideo:
    video.entities.sort(key=lambda entity: entity.id)
    return check_video(video, f"{path}: video {video.id}")


def _categories(videos: Sequence[TrackedVideo]) -> dict[str, int]:
    labels = dict.fromkeys(label for video in videos for label in video.labels)
    return {label: number for number, label in enumerate(labels, start=1)}


def _listed(category_of: dict[str, int]) -> list[dict[str, Any]]:
    return [{"id": number, "name": label, "supercategory": label} for label, number in category_of.items()]


def _names(categories: list[_Category]) -> dict[Key, str | None]:
    """Category id -> name; None for the one of entities without a name."""
    from entitysam.exchange.video import ENTITY

    return {category["id"]: None if category["name"] == ENTITY else category["name"] for category in categories}


def _found(values: dict[Any, Any], key: Any, where: str) -> Any:
    if key not in values:
        raise InputError(f"{where}: {key!r} is not listed")
    return values[key]


def _timing(video: TrackedVideo) -> dict[str, Any]:
    return {"fps": video.fps, "times": video.times, "source": video.source}


def _write(out: Path, contents: dict[str, Any]) -> None:
    with whole_file(new_file(out)) as temporary:
        temporary.write_text(json.dumps({"info": {"description": "entitysam"}, **contents}), encoding="utf-8")
