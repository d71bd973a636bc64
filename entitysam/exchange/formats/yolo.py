"""YOLO segmentation (Ultralytics): `labels/<frame>.txt` with one polygon per line, and `data.yaml`."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from natsort import natsorted

from entitysam.exchange.outlines import fill, to_polygon
from entitysam.exchange.video import ENTITY, Entity, Instance, TrackedVideo, check_video, decode, new_folder
from entitysam.io.files import make_folder, whole_file
from entitysam.io.json_files import check_type
from entitysam.io.paths import join_inside
from entitysam.io.readers.base import InputError

LABELS, IMAGES, DATA, SIZE = "labels", "images", "data.yaml", "frame_size"
MAX_FILE = 10_000_000  # bytes of data.yaml


def write_yolo(video: TrackedVideo, out: Path, tolerance: float = 0.0) -> None:
    """Labels of every frame: class and x, y in 0..1. The frames themselves belong into `images/`.

    Args:
        video: with its entities. Those without a mask get their box as polygon.
        out: folder to write.
        tolerance: of the polygons in pixels (see `outlines.to_polygon`).
    """
    new_folder(out)
    folder = make_folder(out / LABELS)
    labels = video.labels or [ENTITY]
    side = np.array([video.width, video.height])
    for name, found in zip(video.frames, video.by_frame(), strict=True):
        lines = []
        for entity, instance in found:
            if instance.mask is None or not instance.area:
                x, y, width, height = instance.box
                points = np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]])
            else:
                points = to_polygon(decode(instance.mask), tolerance)
            corners = " ".join(f"{value:.10g}" for value in (points / side).ravel())
            lines.append(f"{labels.index(entity.label)} {corners}\n")
        with whole_file(join_inside(folder, f"{name}.txt", "frame")) as temporary:
            temporary.write_text("".join(lines), encoding="ascii")
    # Without 'path', the folder of this file counts; '.' would be that in which the training starts.
    data = {"train": IMAGES, "val": IMAGES, "names": dict(enumerate(labels)), SIZE: [video.width, video.height]}
    with whole_file(out / DATA) as temporary:
        temporary.write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), encoding="utf-8")


def read_yolo(path: Path) -> TrackedVideo:
    """A folder with `data.yaml` and `labels/`. The format has no ids: every polygon is an entity of its own.

    Raises:
        InputError: not such a folder, or a value that cannot be used.
    """
    data = _read_data(path / DATA)
    files = natsorted((path / LABELS).glob("*.txt"), key=str)
    if not files:
        raise InputError(f"{path / LABELS}: no label files")
    width, height = _size(path, data)
    names = data.get("names", {})
    names = dict(enumerate(names)) if isinstance(names, list) else names
    entities: list[Entity] = []
    for index, file in enumerate(files):
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{file}: cannot be read ({error})") from error
        for place, line in enumerate(lines, start=1):
            where = f"{file}: line {place}"
            if not line.strip():
                continue
            category, *values = line.split()
            numbers = [_number(value, where) for value in values]
            if not category.isdecimal() or len(numbers) < 6 or len(numbers) % 2:
                raise InputError(f"{where}: not 'class x y x y x y ...'")
            points = np.array(numbers).reshape(-1, 2) * [width, height]
            name = names.get(int(category[:9]))
            entity = Entity(len(entities) + 1, name=None if name in (None, ENTITY) else str(name))
            entity.instances[index] = Instance.of_mask(fill([np.round(points, 4)], height, width))
            entities.append(entity)
    frames = [file.stem for file in files]
    return check_video(TrackedVideo(path.resolve().name, width, height, frames, entities), str(path))


def _read_data(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > MAX_FILE:
            raise InputError(f"{file}: is too large")
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError, ValueError) as error:
        raise InputError(f"{file}: cannot be read ({' '.join(str(error).split())})") from error
    if not isinstance(data, dict):
        raise InputError(f"{file}: no keys")
    if not isinstance(data.get("names", {}), dict | list):
        raise InputError(f"{file}: names: neither a list nor numbers with names")
    return data


def _size(path: Path, data: dict[str, Any]) -> tuple[int, int]:
    """(width, height) that `data.yaml` has, or that of the first image."""
    from entitysam.io.readers.images import image_size, list_images

    if SIZE in data:
        width, height = check_type(data[SIZE], tuple[int, int], f"{path / DATA}: {SIZE}", InputError)
        if not (1 <= width <= 2**16 and 1 <= height <= 2**16):
            raise InputError(f"{path / DATA}: {SIZE}: {width} x {height} is out of range")
        return width, height
    images = list_images(path / IMAGES) if (path / IMAGES).is_dir() else []
    if not images:
        raise InputError(f"{path}: neither '{SIZE}' in {DATA} nor {IMAGES}/: the size of the frames is not known")
    return image_size(images[0])


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not -1 <= value <= 2:
        raise InputError(f"{where}: {text!r} is not a coordinate in 0..1")
    return value
