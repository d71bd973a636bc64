"""Entity ids as PNG files."""

from pathlib import Path

import numpy as np
from PIL import Image

from entitysam.io.files import whole_file
from entitysam.ops import ids_to_rgb, rgb_to_ids


def write_ids(path: Path, ids: np.ndarray) -> None:
    """Writes entity ids [H, W], each in 0..2^24-1, as an RGB PNG with id = R + 256 G + 65536 B.

    Raises:
        OutputError: `path` cannot be written.
    """
    with whole_file(path) as temporary:
        Image.fromarray(ids_to_rgb(ids)).save(temporary, format="PNG", compress_level=4)


def read_ids(path: Path) -> np.ndarray:
    """int32 [H, W] ids of a PNG from `write_ids`."""
    with Image.open(path) as image:
        return rgb_to_ids(np.asarray(image if image.mode == "RGB" else image.convert("RGB")))  # convert copies
