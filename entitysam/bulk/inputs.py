"""From what a user names (videos, folders, globs, lists, manifests, addresses) to the videos of a job, lazily."""

import glob
import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from entitysam.bulk.settings import Clip
from entitysam.io.paths import split_pattern
from entitysam.io.readers.base import InputError
from entitysam.io.readers.images import SUFFIXES as IMAGES

VIDEOS = (
    *(".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv"),
    *(".3gp", ".ogv", ".gif", ".y4m", ".vob", ".mxf"),
)
LISTS, TABLES = (".txt", ".lst"), (".parquet", ".csv")
PATH, COLUMNS = "path", ("path", "start", "end", "id")
BATCH = 10_000  # rows of a manifest in memory at a time
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def list_clips(inputs: Sequence[str]) -> Iterator[Clip]:
    """The videos that inputs name, in order; the same video may come twice.

    | input | videos |
    | --- | --- |
    | a video | itself, by the name of its file without suffix |
    | a folder | the videos in it and below, and each folder of images below it, by their path from it without suffix |
    | a glob | what it finds, by the path from its first folder with a wildcard |
    | `.txt`, `.lst` | a path or address per line, relative to the list |
    | `.parquet`, `.csv` | rows with `path`, relative to the manifest, and optionally `start` and `end` in seconds and `id` |
    | an address | itself; a folder or glob where its file system can list |

    Videos that are missing or broken are listed like others: that is found when they are read.

    Raises:
        InputError: an input that does not exist or holds no video; a manifest that cannot be read, lacks `path` or has values
            of a wrong type.
    """
    for text in inputs:
        found = False
        for clip in _expand(text):
            found = True
            yield clip
        if not found:
            raise InputError(f"{text}: no videos ({', '.join(VIDEOS[:5])}, ...) and no folders of images in it")


def _expand(text: str) -> Iterator[Clip]:
    if ADDRESS.match(text):
        return _expand_address(text)
    path = Path(text)
    suffix = path.suffix.lower()
    if path.is_dir():
        return _walk(path.absolute())
    if path.exists():
        if suffix in LISTS:
            return _read_list(path)
        if suffix in TABLES:
            return _read_table(path)
        return iter([Clip(path.stem, str(path.absolute()))])
    if glob.has_magic(text):
        return _expand_pattern(text)
    raise InputError(f"{text}: no such file or folder")


def _walk(root: Path) -> Iterator[Clip]:
    """Videos and folders of images below a folder, each folder sorted by name; hidden ones are left out."""
    for folder, below, files in os.walk(root, followlinks=True):
        below[:] = sorted(name for name in below if not name.startswith("."))
        names = sorted(name for name in files if not name.startswith("."))
        videos = [name for name in names if name.lower().endswith(VIDEOS)]
        for name in videos:
            yield Clip(_name(Path(folder, name).relative_to(root)), str(Path(folder, name)))
        if not videos and any(name.lower().endswith(IMAGES) for name in names):
            inside = Path(folder).relative_to(root)
            yield Clip(inside.as_posix() if inside.parts else root.name, folder)


def _expand_pattern(text: str) -> Iterator[Clip]:
    root, pattern = split_pattern(text)
    found = glob.iglob(str(Path(glob.escape(str(root)), *pattern)), recursive=True)
    for name in sorted(found):
        path = Path(name).absolute()
        if path.is_dir():
            if any(child.suffix.lower() in IMAGES for child in path.iterdir()):
                yield Clip(path.relative_to(root.absolute()).as_posix(), str(path))
        elif path.suffix.lower() in VIDEOS:
            yield Clip(_name(path.relative_to(root.absolute())), str(path))


def _name(path: Path) -> str:
    return path.with_suffix("").as_posix()


def _expand_address(text: str) -> Iterator[Clip]:
    if text.lower().endswith(TABLES):
        raise InputError(f"{text}: a manifest must be a local file")
    scheme = urlsplit(text).scheme.lower()
    if scheme in ("http", "https"):
        return iter([Clip(address_name(text), text)])
    return _list_address(text)


def _list_address(text: str) -> Iterator[Clip]:
    """The videos of a folder or glob of another file system."""
    import fsspec

    try:
        files, root = fsspec.core.url_to_fs(text)
        is_pattern = glob.has_magic(root)
        if not is_pattern and not files.isdir(root):
            yield Clip(address_name(text), text)
            return
        found = sorted(files.glob(root) if is_pattern else files.find(root))
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"{text}: cannot be listed ({_reason(error)})") from error
    base = root.split("*")[0].split("?")[0].split("[")[0].rpartition("/")[0] if is_pattern else root.rstrip("/")
    for name in found:
        if name.lower().endswith(VIDEOS):
            inside = PurePosixPath(name.removeprefix(base).lstrip("/"))
            yield Clip(str(inside.with_suffix("")), files.unstrip_protocol(name))


def address_name(text: str) -> str:
    """The name of the file at an address, without suffix: "https://host/a/b%20c.mp4?key=1" -> "b c"."""
    parts = urlsplit(text)
    return PurePosixPath(unquote(parts.path) or parts.netloc).stem or parts.netloc


def _read_list(path: Path) -> Iterator[Clip]:
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for line in lines:
                if line.strip():
                    yield _entry(line.rstrip("\r\n"), path)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a list of videos ({_reason(error)})") from error


def _entry(text: str, listed_in: Path, **values: Any) -> Clip:
    """A video that a list or manifest names."""
    where = text if ADDRESS.match(text) else os.path.abspath(listed_in.absolute().parent / text)
    name = address_name(text) if ADDRESS.match(text) else Path(text).stem
    return Clip(values.pop("id", None) or name or "video", where, **values)


def _read_table(path: Path) -> Iterator[Clip]:
    try:
        yield from _rows(path)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a manifest that can be read ({_reason(error)})") from error


def _rows(path: Path) -> Iterator[Clip]:
    if path.suffix.lower() == ".csv":
        text = {name: pa.string() for name in (PATH, "id")}  # ids such as 007 stay as they are
        options = pa.csv.ConvertOptions(column_types=text, strings_can_be_null=True)
        reader = pa.csv.open_csv(path, convert_options=options)
        schema, batches = reader.schema, iter(reader)
    else:
        file = pq.ParquetFile(path)
        schema, batches = file.schema_arrow, file.iter_batches(BATCH, columns=_used(file.schema_arrow))
    _check_columns(path, schema)
    count = 0
    for batch in batches:
        for row in batch.select(_used(schema)).to_pylist():
            count += 1
            yield _entry(_path_of(row, f"{path}: row {count}"), path, **_options(row, f"{path}: row {count}"))


def _used(schema: pa.Schema) -> list[str]:
    return [name for name in COLUMNS if name in schema.names]


def _check_columns(path: Path, schema: pa.Schema) -> None:
    if PATH not in schema.names:
        raise InputError(f"{path}: no column 'path' (there are: {', '.join(schema.names[:8]) or 'none'})")
    for name in ("start", "end"):
        kind = schema.field(name).type if name in schema.names else pa.null()
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)):
            raise InputError(f"{path}: column '{name}' must be numbers, in seconds, not {kind}")


def _path_of(row: dict[str, Any], where: str) -> str:
    text = row[PATH]
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise InputError(f"{where}: 'path' is {text!r}, not a path or address")
    return text


def _options(row: dict[str, Any], where: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name in ("start", "end"):
        value = row.get(name)
        if value is not None and not math.isnan(value):
            values[name] = float(value)
    if values.get("start", 0.0) < 0 or values.get("end", math.inf) <= values.get("start", 0.0):
        raise InputError(f"{where}: start {row.get('start')} and end {row.get('end')} are no section of a video")
    given = row.get("id")
    if given is not None and str(given).strip():
        values["id"] = str(given)
    return values


def _reason(error: Exception) -> str:
    return " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())
