"""Joins names that were read from a file to their folder without leaving it, and splits glob patterns."""

import os
import re
from pathlib import Path

MAX_PART = 255  # bytes in one part of a path on the common file systems
MAX_NAME = 1024  # bytes in a whole name
DRIVE = re.compile(r"[A-Za-z]:")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class UnsafePathError(ValueError):
    """A name in a file that cannot be a path below its folder; the message names the file."""


def join_inside(root: str | Path, name: str, where: str, *, follow_links: bool = False) -> Path:
    """Joins `name`, which comes from a file, to `root`. Only the text is checked; the path need not exist.

    Args:
        root: folder that must not be left; it may itself be a symbolic link.
        name: relative path as the file has it.
        where: start of the error message, e.g. "result.json: frame 3".
        follow_links: accept symbolic links below `root`, for files that are only read: users link images into a data
            set. Never for files that are written.

    Returns:
        root / name.

    Raises:
        UnsafePathError: `name` is no text, empty, absolute, over-long, has `..`, a drive letter or control characters;
            or, without `follow_links`, a part of it is a symbolic link.
    """
    problem = _problem(name)
    if problem:
        raise UnsafePathError(f"{where}: the file name {_shown(name)} {problem}")
    path = Path(root) / name
    if not follow_links:
        parents = [path, *path.parents]
        below = parents[: len(parents) - len(Path(root).parents) - 1]
        link = next((part for part in below if part.is_symlink()), None)
        if link is not None:
            raise UnsafePathError(f"{where}: the file name {_shown(name)} leads through the symbolic link {link}")
    return path


def split_pattern(source: str) -> tuple[Path, list[str]]:
    """Splits a glob pattern into the longest leading path that exists, taken as written, and the parts after it."""
    parts = Path(source).parts
    count = 0
    while count < len(parts) and Path(*parts[: count + 1]).exists():
        count += 1
    return Path(*parts[:count]), list(parts[count:])


def _problem(name: object) -> str:
    """What is wrong with a name, "" where nothing is."""
    if not isinstance(name, str):
        return f"is a {type(name).__name__}, not a text"
    try:
        encoded = os.fsencode(name)
    except UnicodeEncodeError:
        return "has characters that no file name can have"
    if CONTROL.search(name):
        return "has control characters"
    parts = re.split(r"[/\\]", name)  # both separators: a set may be made on one system and used on another
    if not any(part not in ("", ".") for part in parts):
        return "names no file"
    if not parts[0] or DRIVE.match(name):
        return "is not relative to its folder"
    if ".." in parts:
        return "leaves its folder ('..')"
    if len(encoded) > MAX_NAME or max(len(os.fsencode(part)) for part in parts) > MAX_PART:
        return "is too long"
    return ""


def _shown(name: object) -> str:
    """A name for an error message: escaped, cut after 60 characters."""
    text = repr(name)
    return text if len(text) <= 60 else f"{text[:56]}...{text[-1]}"
