"""Reading images: any mode that Pillow knows becomes uint8 RGB, panoptic PNGs become id maps; every error names its file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from entitysam.io.readers.images import SUFFIXES
from entitysam.ops import rgb_to_ids


class DataError(ValueError):
    """Data that cannot be used; the message starts with the file that it is about."""


def read_image(path: str | Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Reads an image of any mode: grey, 16 bit, palette, RGBA (alpha is dropped), CMYK.

    Args:
        path: the file.
        size: (height, width) of its annotation. The camera's EXIF rotation is applied, unless only the stored pixels
            have this size: a few sets were annotated without it.

    Returns:
        uint8 [H, W, 3] RGB.

    Raises:
        DataError: missing, broken, truncated or huge file, or another size than `size`.
    """
    with open_image(path) as image:
        upright = ImageOps.exif_transpose(image)
        only_stored_fits = size is not None and upright.size != (size[1], size[0]) == image.size
        pixels = _to_rgb(image if only_stored_fits else upright)
    if size is not None and pixels.shape[:2] != tuple(size):
        raise DataError(f"{path}: image is {_shape(pixels.shape)}, its annotation {_shape(size)}")
    return pixels


def read_id_map(path: str | Path) -> np.ndarray:
    """int32 [H, W] ids of a panoptic PNG, id = R + 256 G + 65536 B; a palette PNG is looked up first.

    Raises:
        DataError: missing, broken or huge file.
    """
    with open_image(path) as image:
        return rgb_to_ids(np.asarray(image.convert("RGB")))


@contextmanager
def open_image(path: str | Path) -> Iterator[Image.Image]:
    """Opens an image; what Pillow raises inside the block becomes a DataError that names the file.

    Raises:
        DataError: missing, broken or truncated file, or more pixels than Pillow's limit for decompression bombs.
    """
    try:
        with Image.open(path) as image:
            yield image
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except Exception as error:  # Pillow's decoders raise nearly every kind on damaged files
        raise DataError(f"{path}: not an image that can be read ({error})") from error


def frame_name(file: str) -> str:
    """A frame's name: that of its image file without folder and image suffix; "clip.0000" keeps its number."""
    name = file.replace("\\", "/").rsplit("/", 1)[-1]
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in SUFFIXES else name


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):  # 16 bit grey, which Pillow would clip at 255
        grey = np.clip(np.asarray(image, np.int64) >> 8, 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.array(image.convert("RGB"))


def _shape(size: tuple[int, ...]) -> str:
    return f"{size[1]}x{size[0]}"
