"""Reading pictures: any mode PIL knows becomes uint8 RGB, panoptic PNGs become id maps; every error names its file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from entitysam.ops import rgb_to_ids


class DataError(ValueError):
    """Data that cannot be used; the message starts with the file it is about."""


def read_image(path: str | Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Reads a picture of any mode: grey, 16 bit, palette, RGBA (alpha is dropped), CMYK.

    Args:
        path: the file.
        size: (height, width) of its annotation. The camera's EXIF rotation is applied, unless only the stored pixels
            have this size: a few sets were annotated without it.

    Returns:
        uint8 [H, W, 3] RGB.

    Raises:
        DataError: missing, broken or truncated file, or another size than `size`.
    """
    with _open(path) as image:
        upright = _decode(path, ImageOps.exif_transpose, image)
        only_stored_fits = size is not None and upright.size != (size[1], size[0]) == image.size
        pixels = _decode(path, _to_rgb, image if only_stored_fits else upright)
    if size is not None and pixels.shape[:2] != tuple(size):
        raise DataError(f"{path}: image is {_shape(pixels.shape)}, its annotation {_shape(size)}")
    return pixels


def read_id_map(path: str | Path) -> np.ndarray:
    """int32 [H, W] ids of a panoptic PNG, id = R + 256 G + 65536 B; a palette PNG is looked up first.

    Raises:
        DataError: missing or broken file.
    """
    with _open(path) as image:
        return rgb_to_ids(np.asarray(_decode(path, lambda opened: opened.convert("RGB"), image)))


def _open(path: str | Path) -> Image.Image:
    try:
        return Image.open(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise DataError(f"{path}: not a readable picture ({error})") from error


def _decode(path: str | Path, operation: Callable[[Image.Image], Any], image: Image.Image) -> Any:
    try:
        return operation(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: broken picture ({error})") from error


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):  # 16 bit grey, which PIL would clip at 255
        grey = np.clip(np.asarray(image, np.int64) >> 8, 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.array(image.convert("RGB"))


def _shape(size: tuple[int, ...]) -> str:
    return f"{size[1]}x{size[0]}"
