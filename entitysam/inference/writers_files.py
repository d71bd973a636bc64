"""Files that are either whole or not there, and the id PNGs."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from entitysam.ops import ids_to_rgb, rgb_to_ids


class OutputError(OSError):
    """Results cannot be written; the message names the file or folder and the reason."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a hidden name beside `path` to write to; at the end it becomes `path`, after an error it is removed.

    Raises:
        OutputError: the folder is not there or cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> Path:
    """Creates a folder (and those above it) and checks that files can be written there.

    Raises:
        OutputError: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".write-test.part"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written to ({error.strerror or error})") from error
    return folder


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
        return rgb_to_ids(np.asarray(image.convert("RGB")))


def as_stem(name: str) -> str:
    """A name made fit to be a file's stem on every system."""
    return re.sub(r'[\\/:*?"<>|\x00-\x1f]', "_", name) or "_"
