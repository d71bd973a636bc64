"""Label Studio, object tracking in a video (`VideoRectangle`): boxes in percent of the frame, frames from 1."""

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from typing_extensions import NotRequired, TypedDict

from entitysam.exchange.video import ENTITY, Entity, Instance, Side, TrackedVideo, check_video, new_file
from entitysam.io.files import whole_file
from entitysam.io.json_files import Finite, check_type, keep_other_keys, load_json
from entitysam.io.readers.base import InputError


def write_label_studio(video: TrackedVideo, out: Path) -> None:
    """Tasks with one prediction, for 'Import'. The labelling configuration needs `VideoRectangle` "box", `Labels` "videoLabels"
    and `Video` "video" with the labels of the entities."""
    results = []
    for entity in video.entities:
        frames = sorted(entity.instances)
        sequence = [
            {
                "frame": index + 1,
                **_percent(entity.instances[index], video),
                "rotation": 0,
                # The object is shown until the next entry: the last one of a stretch ends it.
                "enabled": index + 1 in entity.instances,
                **({} if video.times[index] is None else {"time": video.times[index]}),
            }
            for index in frames
        ]
        value = {"framesCount": len(video.frames), "sequence": sequence, "labels": [entity.label]}
        known = [time for time in video.times if time is not None]
        value |= {"duration": known[-1]} if known else {}
        results.append({"id": str(entity.id), "type": "videorectangle", "from_name": "box", "to_name": "video",
                        "value": value, "score": entity.score, "original_width": video.width,
                        "original_height": video.height})  # fmt: skip
    source = (video.source or {}).get("source", video.id)
    tasks = [{"data": {"video": source}, "predictions": [{"model_version": "entitysam", "result": results}]}]
    with whole_file(new_file(out)) as temporary:
        temporary.write_text(json.dumps(tasks), encoding="utf-8")


def _percent(instance: Instance, video: TrackedVideo) -> dict[str, float]:
    x, y, width, height = instance.box
    across, down = 100 / video.width, 100 / video.height
    return {"x": x * across, "y": y * down, "width": width * across, "height": height * down}


class _Entry(TypedDict):
    frame: Annotated[int, Field(ge=1, le=2**24)]
    x: Finite
    y: Finite
    width: Finite
    height: Finite
    enabled: NotRequired[bool]
    time: NotRequired[Finite | None]


class _Value(TypedDict):
    framesCount: NotRequired[Annotated[int, Field(ge=0, le=2**24)]]
    sequence: list[_Entry]
    labels: NotRequired[list[str]]


class _Result(TypedDict):
    id: str
    type: str
    value: NotRequired[dict[str, Any]]
    score: NotRequired[Finite | None]
    original_width: NotRequired[Side]
    original_height: NotRequired[Side]


class _Results(TypedDict):
    result: list[_Result]


@keep_other_keys
class _Data(TypedDict):
    video: NotRequired[str]


class _Task(TypedDict):
    data: _Data
    annotations: NotRequired[list[_Results]]
    predictions: NotRequired[list[_Results]]


def read_label_studio(path: Path) -> list[TrackedVideo]:
    """The tasks of an export: of each the last annotation, or the last prediction where nobody annotated it. Boxes between two
    entries are interpolated, as Label Studio shows them. Ids that are no numbers are counted.

    Raises:
        InputError: not such a file; no size of the frames, which Label Studio keeps only where it was imported.
    """
    videos = []
    for place, task in enumerate(check_type(load_json(path), list[_Task], str(path), InputError)):
        where = f"{path}: task {place}"
        answers = task.get("annotations") or task.get("predictions") or []
        results = [
            result for result in (answers[-1]["result"] if answers else []) if result["type"] == "videorectangle"
        ]
        if not results:
            continue
        size = next(((r["original_width"], r["original_height"]) for r in results if "original_width" in r), None)
        if size is None:
            raise InputError(f"{where}: no 'original_width': the size of the frames is not known")
        entities, count, times = [], 0, dict[int, float | None]()
        numbers = [int(r["id"]) if r["id"].isdecimal() and len(r["id"]) < 8 else 0 for r in results]
        for position, (result, number) in enumerate(zip(results, numbers), start=1):
            value = check_type(result.get("value"), _Value, f"{where}: object {result['id']}", InputError)
            label = next(iter(value.get("labels", [])), ENTITY)
            score = result.get("score")
            name = None if label == ENTITY else label
            entity = Entity(number if all(numbers) else position, 1.0 if score is None else score, name)
            _add(entity, value["sequence"], size)
            times |= {entry["frame"] - 1: entry.get("time") for entry in value["sequence"]}
            count = max([count, value.get("framesCount", 0), *(index + 1 for index in entity.instances)])
            entities.append(entity)
        title = Path(str(task["data"].get("video", path.stem))).stem or path.stem
        frames = [f"{index:05d}" for index in range(count)]
        videos.append(check_video(TrackedVideo(title, *size, frames, entities), where))
    return videos


def _add(entity: Entity, sequence: list[_Entry], size: tuple[int, int]) -> None:
    rows = sorted(sequence, key=lambda entry: entry["frame"])
    for entry, after in zip(rows, [*rows[1:], None]):
        first = entry["frame"] - 1
        box = _pixels(entry, size)
        entity.instances[first] = Instance(box)
        if after is None or not entry.get("enabled", True):
            continue
        steps, end = after["frame"] - entry["frame"], _pixels(after, size)
        for step in range(1, steps):
            share = step / steps
            between = tuple((1 - share) * a + share * b for a, b in zip(box, end))
            entity.instances[first + step] = Instance(between)  # type: ignore[arg-type]


def _pixels(entry: _Entry, size: tuple[int, int]) -> tuple[float, float, float, float]:
    across, down = size[0] / 100, size[1] / 100
    return entry["x"] * across, entry["y"] * down, entry["width"] * across, entry["height"] * down
