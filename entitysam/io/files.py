"""Files that are either whole or not there."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
        temporary.unlink(missing_ok=True)  # a symbolic link lying there would be followed
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
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
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written to ({error.strerror or error})") from error
    return folder


def check_folder(folder: Path) -> Path:
    """Checks that a folder is there or could be created, and leaves everything as it is.

    Raises:
        OutputError: something else has its name, or what is above it cannot be written to.
    """
    existing = next(path for path in [folder, *folder.resolve().parents] if path.exists())
    if not existing.is_dir():
        raise OutputError(f"{folder}: cannot be written to ({existing} is not a folder)")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(f"{folder}: cannot be written to (no permission for {existing})")
    return folder


def as_stem(name: str) -> str:
    """A name made fit to be a file's stem on every system."""
    return re.sub(r'[\\/:*?"<>|\x00-\x1f]', "_", name) or "_"
