"""Files that are either complete or absent."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class OutputError(OSError):
    """Results cannot be written; the message names the file or folder and the reason."""


@contextmanager
def output_errors(path: Path | str) -> Iterator[None]:
    """Turns an `OSError` of the block (a full disk, missing permissions) into an `OutputError` that names `path`."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error


def create_file(path: Path) -> None:
    """Creates an empty file; an existing file or symbolic link of that name is removed, not followed."""
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a hidden path beside `path` to write to; it is renamed to `path` at the end and removed after an error.

    Raises:
        OutputError: the folder is missing, cannot be written to, or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        with output_errors(path):
            create_file(temporary)
            yield temporary
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> Path:
    """Creates a folder (and its parents) and checks that files can be written there.

    Raises:
        OutputError: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written to ({error.strerror or error})") from error
    return folder


def check_folder(folder: Path) -> Path:
    """Checks that a folder exists or can be created, without changing anything.

    Raises:
        OutputError: a file has its name, or its closest existing parent cannot be written to.
    """
    existing = next(path for path in [folder, *folder.resolve().parents] if path.exists())
    if not existing.is_dir():
        raise OutputError(f"{folder}: cannot be written to ({existing} is not a folder)")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(f"{folder}: cannot be written to (no permission for {existing})")
    return folder


def as_stem(name: str) -> str:
    """Replaces the characters of a name that cannot be in a file name on every system; "_" for "", "." and ".."."""
    stem = re.sub(r'[\\/:*?"<>|\x00-\x1f]', "_", name)
    return stem if stem.strip(".") else "_"
