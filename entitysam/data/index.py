"""Annotation files: read once, checked against a schema, and packed so that worker processes share the memory."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from entitysam.data.images import DataError
from entitysam.io.json_files import JsonError, check_type, load_json


class PackedRecords:
    """A list of JSON-like records in one byte array.

    The memory of millions of Python objects would be copied into every worker as reference counts change; that of one
    array is shared.
    """

    def __init__(self, records: Iterable[Any]) -> None:
        encoded = [json.dumps(record, separators=(",", ":")).encode() for record in records]
        self._bytes = np.frombuffer(b"".join(encoded), np.uint8)
        self._ends = np.cumsum([0, *map(len, encoded)])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        return json.loads(self._bytes[self._ends[index] : self._ends[index + 1]].tobytes())


def read_json(path: Path, required: Iterable[str], hint: str) -> dict[str, Any]:
    """A JSON object with the required keys.

    Args:
        path: the file.
        required: keys that must be there.
        hint: how to get the data set, for the message.

    Raises:
        DataError: missing file, broken JSON, missing key.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file. {hint}")
    contents = parse_json(path)
    missing = [key for key in required if not isinstance(contents, dict) or key not in contents]
    if missing:
        raise DataError(f"{path}: no '{missing[0]}' in it; it is not the annotation file of this data set")
    return contents


def read_typed(path: Path, schema: Any, hint: str) -> Any:
    """A JSON file that matches a schema (`entitysam.data.schemas`).

    Args:
        path: the file.
        schema: a `TypedDict`; keys that it does not have are left out.
        hint: how to get the data set, for the message.

    Raises:
        DataError: missing file, broken or deeply nested JSON, a missing key, a value of another type.
    """
    required = [key for key in schema.__annotations__ if key in schema.__required_keys__]
    return match_schema(read_json(path, required, hint), schema, path)


def parse_json(path: Path) -> Any:
    """The contents of any JSON file.

    Raises:
        DataError: missing file, broken or deeply nested JSON.
    """
    try:
        return load_json(path)
    except JsonError as error:
        raise DataError(str(error)) from error


def match_schema(contents: Any, schema: Any, path: Path) -> Any:
    """Checks the contents of `path` as `read_typed` does; raises DataError."""
    return check_type(contents, schema, str(path), DataError)


def read_text(path: Path, hint: str = "") -> str:
    """A text file in UTF-8, UTF-16 or UTF-32, without its byte order mark.

    Raises:
        DataError: missing file, or not a text.
    """
    try:
        raw = path.read_bytes()
        return raw.decode(json.detect_encoding(raw)).removeprefix("\ufeff")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file" + (f". {hint}" if hint else "")) from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text ({error})") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def require_folder(path: Path, hint: str) -> Path:
    """`path`, if it is a folder.

    Raises:
        DataError: it is not.
    """
    if not path.is_dir():
        raise DataError(f"{path}: no such folder. {hint}")
    return path


def raise_first(problems: list[str], check: str) -> None:
    """Refuses an annotation file that contradicts itself: the first problem, and the command that lists all.

    Raises:
        DataError: if there is any problem.
    """
    if problems:
        more = f"; {len(problems) - 1} more: see 'tools/prepare_data.py check {check}'" if len(problems) > 1 else ""
        raise DataError(problems[0] + more)
