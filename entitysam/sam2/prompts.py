"""Prompts of a video: from a JSON file, checked before a network runs::

    {"prompts": [
        {"id": 1, "frame": 0, "points": [[410, 220]], "labels": [1]},
        {"id": 2, "frame": 0, "box": [30, 40, 200, 180], "name": "dog"},
        {"id": 3, "frame": 12, "mask": "masks/dog.png"},
        {"id": 1, "frame": 40, "points": [[415, 240], [300, 90]], "labels": [1, 0]}
    ]}

The first prompt of an id starts the object, later ones correct it. Coordinates are (x, y) pixels, frames count from 0. A mask is
an image below the folder of the JSON file (any pixel > 0 is inside) or a COCO run-length code.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import NotRequired, TypedDict

from entitysam.io.json_files import Box, Finite, Integer, check_type, load_json, refuse_other_keys
from entitysam.io.paths import join_inside

MAX_ID = 65535


class PromptFileError(ValueError):
    """A file of prompts that cannot be used; the message names the file and the prompt."""


@refuse_other_keys
class _Prompt(TypedDict):
    id: Integer
    frame: NotRequired[Integer]
    points: NotRequired[list[list[Finite]]]
    labels: NotRequired[list[Integer]]
    box: NotRequired[Box]
    mask: NotRequired[str | dict[str, Any]]
    name: NotRequired[str]


class _File(TypedDict):
    prompts: list[_Prompt]


@dataclass(frozen=True)
class Prompt:
    """One prompt of one object on one frame: points, a box (with points), or a mask.

    Attributes:
        object_id: 1..65535; it becomes the id in the maps.
        frame: from 0.
        points: (x, y) in pixels; labels: 1 inside the object, 0 outside, as many.
        box: (x1, y1, x2, y2) in pixels, or None.
        mask: bool [H, W], or None.
        name: of the object, or "".
    """

    object_id: int
    frame: int = 0
    points: tuple[tuple[float, float], ...] = ()
    labels: tuple[int, ...] = ()
    box: tuple[float, float, float, float] | None = None
    mask: np.ndarray | None = None
    name: str = ""


def read_prompts(path: str | Path) -> list[Prompt]:
    """Reads a file of prompts.

    Raises:
        JsonError, PromptFileError, UnsafePathError: broken file; a prompt without points, box and mask, with a mask and
            something else, or with an unknown key; an id outside 1..65535; two prompts of one object on one frame.
    """
    path = Path(path)
    contents = check_type(load_json(path), _File, str(path))
    prompts = [
        _prompt(item, f"{path}: prompt {number}", path.parent) for number, item in enumerate(contents["prompts"])
    ]
    check_prompts(prompts, str(path))
    return prompts


def check_prompts(prompts: Sequence[Prompt], where: str) -> None:
    """Checks what needs no video.

    Raises:
        PromptFileError: no prompts, or two of one object on one frame.
    """
    if not prompts:
        raise PromptFileError(f"{where}: no prompts")
    seen: set[tuple[int, int]] = set()
    for prompt in prompts:
        key = (prompt.object_id, prompt.frame)
        if key in seen:
            raise PromptFileError(
                f"{where}: object {key[0]} has two prompts on frame {key[1]}; put its points into one"
            )
        seen.add(key)


def _prompt(item: Mapping[str, Any], where: str, folder: Path) -> Prompt:
    object_id, frame = item["id"], item.get("frame", 0)
    if not 1 <= object_id <= MAX_ID:
        raise PromptFileError(f"{where}: the id must lie in 1..{MAX_ID}, not {object_id}")
    if frame < 0:
        raise PromptFileError(f"{where}: frames count from 0, not {frame}")
    points, labels = item.get("points", []), item.get("labels")
    if any(len(point) != 2 for point in points):
        raise PromptFileError(f"{where}: a point is [x, y]")
    labels = [1] * len(points) if labels is None else labels
    if len(labels) != len(points):
        raise PromptFileError(f"{where}: {len(points)} points and {len(labels)} labels")
    box, mask = item.get("box"), item.get("mask")
    if mask is not None and (points or box is not None):
        raise PromptFileError(f"{where}: a mask together with points or a box; give the mask alone")
    if mask is None and not points and box is None:
        raise PromptFileError(f"{where}: needs points, a box or a mask")
    return Prompt(
        object_id,
        frame,
        tuple((float(x), float(y)) for x, y in points),
        tuple(labels),
        None if box is None else tuple(box),  # type: ignore[arg-type]
        None if mask is None else _mask(mask, where, folder),
        item.get("name", ""),
    )


def _mask(mask: str | Mapping[str, Any], where: str, folder: Path) -> np.ndarray:
    """A mask from an image file or a run-length code: bool [H, W]."""
    if not isinstance(mask, str):
        from entitysam.ops import rle_decode  # imports torch

        try:
            return rle_decode(dict(mask)).astype(bool)
        except Exception as error:  # pycocotools raises many kinds
            raise PromptFileError(f"{where}: the mask is no run-length code ({error})") from error
    from PIL import Image

    file = join_inside(folder, mask, where, follow_links=True)
    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("I") if image.mode.startswith("I") else image.convert("L")) > 0
    except OSError as error:
        raise PromptFileError(f"{where}: {file} is no readable image ({error})") from error
