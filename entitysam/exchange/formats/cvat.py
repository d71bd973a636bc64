"""CVAT for video 1.1 (XML): a track of polygons, or of boxes where there are no masks, per entity.

CVAT keeps tracks of polygons, but turns masks into single shapes: hence polygons.
"""

import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Writer

import numpy as np

from entitysam.exchange.outlines import fill, to_polygon
from entitysam.exchange.video import ENTITY, Entity, Instance, TrackedVideo, check_video, decode, new_file
from entitysam.io.files import whole_file
from entitysam.io.readers.base import InputError
from entitysam.visualization.overlay import id_colours

MAX_SIDE = 2**16


def write_cvat(video: TrackedVideo, out: Path, tolerance: float = 0.0) -> None:
    """One XML. Every shape is a keyframe, so that CVAT interpolates nothing; the id of a track is that of the entity.

    Args:
        video: with its entities.
        out: file to write.
        tolerance: of the polygons in pixels (see `outlines.to_polygon`).
    """
    root = Writer.Element("annotations")
    _text(root, "version", "1.1")
    task = Writer.SubElement(Writer.SubElement(root, "meta"), "task")
    for tag, value in (("name", video.id), ("size", len(video.frames)), ("mode", "interpolation"), ("overlap", 0)):
        _text(task, tag, value)
    for tag, value in (("start_frame", 0), ("stop_frame", max(len(video.frames) - 1, 0))):
        _text(task, tag, value)
    labels = Writer.SubElement(task, "labels")
    for name, colour in zip(video.labels, id_colours(np.arange(1, len(video.labels) + 1))):
        label = Writer.SubElement(labels, "label")
        _text(label, "name", name)
        _text(label, "color", "#{:02x}{:02x}{:02x}".format(*colour.tolist()))
        _text(label, "type", "any")
        Writer.SubElement(label, "attributes")
    size = Writer.SubElement(task, "original_size")
    _text(size, "width", video.width)
    _text(size, "height", video.height)
    for entity in video.entities:
        track = Writer.SubElement(root, "track", id=str(entity.id), label=entity.label, source="auto")
        for index in sorted(entity.instances):
            instance = entity.instances[index]
            last = instance
            _shape(track, index, instance, tolerance, outside=False)
            if index + 1 < len(video.frames) and index + 1 not in entity.instances:
                _shape(track, index + 1, last, tolerance, outside=True)
    Writer.indent(root)
    with whole_file(new_file(out)) as temporary:
        Writer.ElementTree(root).write(temporary, encoding="utf-8", xml_declaration=True)


def _text(parent: Writer.Element, tag: str, value: object) -> None:
    Writer.SubElement(parent, tag).text = str(value)


def _shape(track: Writer.Element, index: int, instance: Instance, tolerance: float, outside: bool) -> None:
    common = {"frame": str(index), "keyframe": "1", "outside": str(int(outside)), "occluded": "0", "z_order": "0"}
    if instance.mask is not None and instance.area:
        points = to_polygon(decode(instance.mask), tolerance)
        text = ";".join(f"{x:g},{y:g}" for x, y in points.tolist())
        Writer.SubElement(track, "polygon", {**common, "points": text})
    else:
        x, y, width, height = instance.box
        corners = {"xtl": x, "ytl": y, "xbr": x + width, "ybr": y + height}
        Writer.SubElement(track, "box", {**common, **{name: f"{value:g}" for name, value in corners.items()}})


def read_cvat(path: Path) -> TrackedVideo:
    """A file of CVAT for video: tracks of polygons, boxes and masks. Between keyframes an object stays as it is, which holds
    for masks; boxes are interpolated as CVAT shows them.

    Raises:
        InputError: not such a file, or a value that cannot be used.
    """
    root = _parse(path)
    size = root.find(".//original_size")
    if root.tag != "annotations" or size is None:
        raise InputError(f"{path}: is no file of CVAT for video (no original_size)")
    width, height = (_whole(size.findtext(side), f"{path}: {side}", 1, MAX_SIDE) for side in ("width", "height"))
    count = _whole(root.findtext(".//task/size") or root.findtext(".//job/size") or "0", f"{path}: size", 0, 2**24)
    entities = []
    ids: set[int] = set()
    for place, track in enumerate(root.iter("track")):
        where = f"{path}: track {track.get('id', place)}"
        number = _whole(track.get("id", str(place)), where, 0, 2**24 - 1)
        label = track.get("label")
        entity = Entity(number, name=None if label in (None, ENTITY) else label)
        ids.add(number)
        shapes = sorted((_read_shape(shape, (width, height), where) for shape in track), key=lambda shape: shape[0])
        ends = [index for index, _, _ in shapes[1:]] + [count]
        for (index, instance, outside), end, after in zip(shapes, ends, [*shapes[1:], None]):
            if outside:
                continue
            for between in range(index, max(end, index + 1)):
                entity.instances[between] = _between(instance, between - index, end - index, after)
        entities.append(entity)
    if 0 in ids:  # CVAT counts tracks from 0
        for entity in entities:
            entity.id += 1
    count = max([count, *(index + 1 for entity in entities for index in entity.instances)])
    frames = [f"{index:05d}" for index in range(count)]
    title = root.findtext(".//task/name") or path.stem
    return check_video(TrackedVideo(title, width, height, frames, entities), str(path))


def _parse(path: Path) -> Any:
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import ParseError, parse

    try:
        return parse(path).getroot()
    except (OSError, ParseError, DefusedXmlException, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def _read_shape(shape: Any, size: tuple[int, int], where: str) -> tuple[int, Instance, bool]:
    index = _whole(shape.get("frame"), f"{where}: frame", 0, 2**24 - 1)
    where = f"{where}: frame {index}"
    outside = shape.get("outside") == "1"
    width, height = size
    if shape.tag == "box":
        left, top, right, bottom = (_number(shape.get(key), where) for key in ("xtl", "ytl", "xbr", "ybr"))
        return index, Instance((left, top, right - left, bottom - top)), outside
    if shape.tag == "polygon":
        pairs = [pair.split(",") for pair in (shape.get("points") or "").split(";")]
        if any(len(pair) != 2 for pair in pairs) or len(pairs) < 3:
            raise InputError(f"{where}: a polygon needs x,y of three points or more")
        points = np.array([[_number(value, where) for value in pair] for pair in pairs])
        points = np.clip(points, -width, 2 * width) if width > height else np.clip(points, -height, 2 * height)
        return index, Instance.of_mask(fill([points], height, width)), outside
    if shape.tag == "mask":
        return index, Instance.of_mask(_read_mask(shape, size, where)), outside
    raise InputError(f"{where}: a {shape.tag}; only polygons, boxes and masks can be read")


def _read_mask(shape: Any, size: tuple[int, int], where: str) -> np.ndarray:
    """A mask of CVAT: runs of the rows of its box, the background first."""
    width, height = size
    left, top = (_whole(shape.get(key), where, 0, side - 1) for key, side in (("left", width), ("top", height)))
    columns = _whole(shape.get("width"), where, 1, width - left)
    rows = _whole(shape.get("height"), where, 1, height - top)
    runs = [_whole(run, where, 0, width * height) for run in (shape.get("rle") or "").split(",")]
    if sum(runs) != rows * columns:
        raise InputError(f"{where}: the runs of a mask do not add up to {columns} x {rows}")
    mask = np.zeros((height, width), bool)
    values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    mask[top : top + rows, left : left + columns] = values.reshape(rows, columns)
    return mask


def _between(instance: Instance, step: int, steps: int, after: tuple[int, Instance, bool] | None) -> Instance:
    """An object `step` frames behind a keyframe, with the next one `steps` behind it."""
    if instance.mask is not None or after is None or after[1].mask is not None or not step:
        return instance
    share = step / steps
    box = tuple((1 - share) * a + share * b for a, b in zip(instance.box, after[1].box))
    return Instance(box)  # type: ignore[arg-type]


def _whole(text: str | None, where: str, lowest: int, highest: int) -> int:
    if text is None or not text.strip().isdecimal() or not lowest <= int(text[:12]) <= highest:
        raise InputError(f"{where}: {text!r} is not a whole number in {lowest}..{highest}")
    return int(text)


def _number(text: str | None, where: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{where}: {text!r} is not a number")
    return value
