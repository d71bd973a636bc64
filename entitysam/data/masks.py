"""The one entrance for masks that come from files: polygons and COCO run-length codes are checked before pycocotools,
which crashes the process on coordinates that are not finite and trusts every code, sees them."""

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

MAX_PIXELS = 2**28  # of one mask: more than any image that Pillow opens
MAX_PERIMETER = 2_000_000  # pixels along the outline of one mask; pycocotools takes 80 bytes for each
CHARACTER_BITS = 5  # of a count in every character of a compressed code; bit 5 says that the count goes on


class MaskError(ValueError):
    """A polygon or run-length code that cannot be used; the message is a reason without file and annotation."""


def read_mask(shape: Any, height: int | None = None, width: int | None = None) -> dict[str, Any]:
    """Checks a segmentation and brings it into one form.

    Args:
        shape: polygons [[x, y, x, y, ...], ...] in pixels, or a COCO run-length code, `counts` compressed or not. A
            polygon may reach out of the image by the image's own size.
        height, width: of the image in pixels; None = not known, then only codes can be read, at their own size.

    Returns:
        compressed code {"size": [H, W], "counts": text}.

    Raises:
        MaskError: neither of them, another size, or counts, points or coordinates that are out of range.
    """
    if isinstance(shape, dict):
        size, runs = _check_code(shape, height, width)
        counts = shape["counts"]
        if isinstance(counts, list):
            counts = coco_mask.frPyObjects({"size": size, "counts": runs.astype(np.uint32).tolist()}, *size)["counts"]
    else:
        size, polygons = _check_polygons(shape, height, width)
        counts = coco_mask.merge(coco_mask.frPyObjects(polygons, *size))["counts"]
    return {"size": size, "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts}


def check_mask(shape: Any, height: int, width: int) -> None:
    """Raises MaskError where `read_mask` would, without drawing the polygons."""
    if isinstance(shape, dict):
        _check_code(shape, height, width)
    else:
        _check_polygons(shape, height, width)


def _check_code(shape: dict[str, Any], height: int | None, width: int | None) -> tuple[list[int], np.ndarray]:
    """Size [H, W] of a code and float64 [R] lengths of its runs."""
    size, counts = _check_size(shape.get("size")), shape.get("counts")
    expected = [height or size[0], width or size[1]]
    if size != expected:
        raise MaskError(f"its size [height, width] is {size}, the image's {expected}")
    if isinstance(counts, list):
        runs = _numbers(counts, "counts")
        if (runs != np.floor(runs)).any():
            raise MaskError("counts must be whole numbers")
    elif isinstance(counts, bytes | str):
        runs = _decompress(counts)
    else:
        raise MaskError("a run-length code needs 'counts', a text or a list of numbers")
    if (runs < 0).any() or runs.sum() != size[0] * size[1]:
        raise MaskError(f"counts must not be negative and add up to {size[0]} x {size[1]}")
    return size, runs


def _check_size(size: Any) -> list[int]:
    is_pair = isinstance(size, list | tuple) and len(size) == 2 and all(type(side) is int for side in size)
    if not is_pair or min(size) < 1 or size[0] * size[1] > MAX_PIXELS:
        raise MaskError(f"size must be [height, width], at least 1 and at most {MAX_PIXELS} pixels together")
    return list(size)


def _decompress(counts: bytes | str) -> np.ndarray:
    """float64 [R] lengths of the runs of a compressed code (COCO API, `rleFrString`)."""
    try:
        raw = counts.encode("ascii") if isinstance(counts, str) else counts
    except UnicodeEncodeError:
        raise MaskError("counts have characters that no code has") from None
    characters = np.frombuffer(raw, np.uint8).astype(np.int64) - 48
    if not len(characters):
        raise MaskError("counts are empty")
    if characters.min() < 0 or characters.max() > 63:
        raise MaskError("counts have characters that no code has")
    is_last = characters & 32 == 0
    if not is_last[-1]:
        raise MaskError("counts break off")
    ends = np.flatnonzero(is_last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1  # characters of each count
    if lengths.max() > 7:
        raise MaskError("counts are too large")
    place = np.arange(len(characters)) - np.repeat(starts, lengths)
    values = np.add.reduceat((characters & 31) << CHARACTER_BITS * place, starts)
    # Bit 4 of the last character is the sign; from the fourth on, a count is the difference to the one before the last.
    values -= np.where(characters[ends] & 16, 1 << CHARACTER_BITS * lengths, 0)
    runs = values.astype(float)
    runs[1::2], runs[2::2] = np.cumsum(runs[1::2]), np.cumsum(runs[2::2])
    return runs


def _check_polygons(shape: Any, height: int | None, width: int | None) -> tuple[list[int], list[list[float]]]:
    """Size [H, W] of the image and the polygons as floats."""
    if height is None or width is None:
        raise MaskError("the size of the image of its polygons is not known")
    size = _check_size([height, width])
    if not isinstance(shape, list) or not shape or not all(isinstance(polygon, list) for polygon in shape):
        raise MaskError("neither polygons nor a run-length code")
    perimeter = 0.0
    polygons = []
    for polygon in shape:
        if len(polygon) < 6 or len(polygon) % 2:
            raise MaskError("a polygon needs x and y of three points or more")
        points = _numbers(polygon, "the coordinates of a polygon").reshape(-1, 2)  # [P, 2] (x, y)
        if (points < [-width, -height]).any() or (points > [2 * width, 2 * height]).any():
            raise MaskError(f"a polygon reaches far out of the image of {width}x{height}")
        perimeter += np.abs(points - np.roll(points, 1, axis=0)).sum()
        polygons.append(points.ravel().tolist())
    if perimeter > min(MAX_PERIMETER, 4 * (height + 1) * (width + 1)):
        raise MaskError("the outline of its polygons is too long")
    return size, polygons


def _numbers(values: list[Any], what: str) -> np.ndarray:
    """float64 [N], finite."""
    try:
        array = np.asarray(values)
    except ValueError:
        array = np.empty(0, object)
    if array.ndim != 1 or array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        raise MaskError(f"{what} must be finite numbers")
    return array.astype(float)
