"""LabelMe: a json per frame with a mask per entity; `group_id` is the id of the entity."""

import base64
import io
import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from natsort import natsorted
from PIL import Image
from pydantic import Field
from typing_extensions import NotRequired, TypedDict

from entitysam.exchange.outlines import fill, to_polygon
from entitysam.exchange.video import (
    ENTITY,
    Entity,
    Instance,
    Side,
    TrackedVideo,
    check_video,
    decode,
    new_folder,
)
from entitysam.io.files import whole_file
from entitysam.io.json_files import Finite, Integer, check_type, load_json
from entitysam.io.paths import join_inside
from entitysam.io.readers.base import InputError

VERSION = "5.5.0"  # masks are shapes since 5.3
SCORE = "score="


def write_labelme(video: TrackedVideo, out: Path, tolerance: float | None = None) -> None:
    """`<frame>.json`, which belongs to `<frame>.jpg` in the same folder.

    Args:
        video: with its entities.
        out: folder to write.
        tolerance: write polygons (see `outlines.to_polygon`), which can be edited point by point; None writes masks.
    """
    new_folder(out)
    for name, found in zip(video.frames, video.by_frame(), strict=True):
        shapes = [_shape(entity, instance, tolerance) for entity, instance in found]
        contents: dict[str, Any] = {"version": VERSION, "flags": {}, "shapes": shapes, "imagePath": f"{name}.jpg", "imageData": None,
                    "imageHeight": video.height, "imageWidth": video.width}  # fmt: skip
        with whole_file(join_inside(out, f"{name}.json", "frame")) as temporary:
            temporary.write_text(json.dumps(contents), encoding="utf-8")


def _shape(entity: Entity, instance: Instance, tolerance: float | None) -> dict[str, Any]:
    common = {"label": entity.label, "group_id": entity.id, "description": f"{SCORE}{instance.score!r}", "flags": {}}
    x, y, width, height = instance.box
    if instance.mask is None or not instance.area:
        return {**common, "shape_type": "rectangle", "points": [[x, y], [x + width, y + height]], "mask": None}
    mask = decode(instance.mask)
    if tolerance is not None:
        return {**common, "shape_type": "polygon", "points": to_polygon(mask, tolerance).tolist(), "mask": None}
    left, top, right, bottom = int(x), int(y), int(x + width) - 1, int(y + height) - 1
    buffer = io.BytesIO()
    Image.fromarray(mask[top : bottom + 1, left : right + 1].astype(np.uint8) * 255).save(buffer, format="PNG")
    picture = base64.b64encode(buffer.getvalue()).decode("ascii")
    return {**common, "shape_type": "mask", "points": [[left, top], [right, bottom]], "mask": picture}


Point = Annotated[list[Finite], Field(min_length=2, max_length=2)]


class _Shape(TypedDict):
    label: str
    points: list[Point]
    shape_type: str
    group_id: NotRequired[Integer | None]
    description: NotRequired[str | None]
    mask: NotRequired[str | None]


class _Labelme(TypedDict):
    shapes: list[_Shape]
    imageHeight: Side
    imageWidth: Side


def read_labelme(path: Path) -> TrackedVideo:
    """A folder of json files, in natural order: masks, polygons and rectangles. Shapes of one `group_id` are one entity, those
    without are entities of their own; several polygons of a group on a frame are one mask.

    Raises:
        InputError: no such files, or a value that cannot be used.
    """
    files = natsorted(path.glob("*.json"), key=str) if path.is_dir() else [path]
    entities: dict[int, Entity] = {}
    loose: list[Entity] = []
    size: tuple[int, int] | None = None
    for index, file in enumerate(files):
        contents = check_type(load_json(file), _Labelme, str(file), InputError)
        found = contents["imageWidth"], contents["imageHeight"]
        if size is None:
            size = found
        if found != size:
            raise InputError(f"{file}: is {found[0]}x{found[1]}, not {size[0]}x{size[1]}")
        for place, shape in enumerate(contents["shapes"]):
            number = shape.get("group_id")
            name = None if shape["label"] == ENTITY else shape["label"]
            instance = _instance(shape, size, f"{file}: shape {place}")
            if number is None:
                loose.append(Entity(0, name=name, instances={index: instance}))
                continue
            if not 1 <= number < 2**24:
                raise InputError(f"{file}: shape {place}: group_id {number} is not in 1..2^24 - 1")
            entity = entities.setdefault(number, Entity(number, name=name))
            entity.instances[index] = _joined(entity.instances.get(index), instance)
    if size is None:
        raise InputError(f"{path}: no files of LabelMe")
    for number, entity in enumerate(loose, start=max(entities, default=0) + 1):
        entity.id = number
    everything = [*entities.values(), *loose]
    for entity in everything:
        entity.score = float(np.mean([instance.score for instance in entity.instances.values()]))
    frames = [file.stem for file in files]
    return check_video(TrackedVideo(path.resolve().name, *size, frames, everything), str(path))


def _instance(shape: _Shape, size: tuple[int, int], where: str) -> Instance:
    width, height = size
    score = _score(shape.get("description"))
    points = np.array(shape["points"], float).reshape(-1, 2)
    if len(points) and (np.abs(points) > 4 * max(size)).any():
        raise InputError(f"{where}: a point is far out of the image")
    if shape["shape_type"] == "polygon" and len(points) >= 3:
        return Instance.of_mask(fill([points], height, width), score)
    if shape["shape_type"] == "rectangle" and len(points) == 2:
        (left, top), (right, bottom) = points.min(0).tolist(), points.max(0).tolist()
        return Instance((left, top, right - left, bottom - top), score)
    if shape["shape_type"] == "mask" and len(points) == 2 and shape.get("mask"):
        return Instance.of_mask(_pasted(shape["mask"] or "", points, size, where), score)
    raise InputError(f"{where}: a {shape['shape_type']} of {len(points)} points cannot be read")


def _pasted(picture: str, points: np.ndarray, size: tuple[int, int], where: str) -> np.ndarray:
    """bool [H, W] of a mask in its box."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(picture, validate=True))) as image:
            inside = np.asarray(image.convert("L")) > 0
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{where}: its mask cannot be read ({error})") from error
    left, top = (int(value) for value in points[0])
    mask = np.zeros((size[1], size[0]), bool)
    if left < 0 or top < 0 or top + inside.shape[0] > size[1] or left + inside.shape[1] > size[0]:
        raise InputError(f"{where}: its mask reaches out of the image")
    mask[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return mask


def _joined(first: Instance | None, second: Instance) -> Instance:
    if first is None or first.mask is None or second.mask is None:
        return second
    return Instance.of_mask(decode(first.mask) | decode(second.mask), second.score)


def _score(description: str | None) -> float:
    try:
        return float((description or "").removeprefix(SCORE)) if (description or "").startswith(SCORE) else 1.0
    except ValueError:
        return 1.0
