"""Annotation files: read once, checked for what every reader relies on, and packed so that workers share the memory."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from entitysam.data.images import DataError
from entitysam.io.json_files import JsonError, load_json


class PackedRecords:
    """A list of JSON-like records in one byte array.

    Millions of Python objects would be copied into every worker as their reference counts change; one array is not.
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
    try:
        contents = load_json(path)
    except JsonError as error:
        raise DataError(str(error)) from error
    missing = [key for key in required if not isinstance(contents, dict) or key not in contents]
    if missing:
        raise DataError(f"{path}: no '{missing[0]}' in it; it is not the annotation file of this data set")
    return contents


def require_folder(path: Path, hint: str) -> Path:
    """`path`, if it is a folder.

    Raises:
        DataError: it is not.
    """
    if not path.is_dir():
        raise DataError(f"{path}: no such folder. {hint}")
    return path


def raise_first(problems: list[str], check: str) -> None:
    """Refuses an annotation file that contradicts itself, with the first contradiction and how to see all.

    Raises:
        DataError: if there is any problem.
    """
    if problems:
        more = f"; {len(problems) - 1} more: see 'tools/prepare_data.py check {check}'" if len(problems) > 1 else ""
        raise DataError(problems[0] + more)
