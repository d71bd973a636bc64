"""`OUT/.job/journal.jsonl`: one line per video that is finished or has failed, appended by the driver."""

import json
from array import array
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import numpy as np

from entitysam.bulk.manifest import is_member, key_of
from entitysam.bulk.settings import Outcome
from entitysam.io.files import output_errors
from entitysam.io.record_store import file_stem


class Journal:
    """Appends outcomes; used in a `with` block. A line that a killed driver has cut off is ignored when it is read.

    Raises:
        OutputError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with output_errors(path):
            self._file: BinaryIO = path.open("ab")
            if self._file.tell():
                self._file.write(b"\n")  # ends a line that was cut off; empty lines are skipped

    def add(self, outcome: Outcome) -> None:
        with output_errors(self.path):
            self._file.write(json.dumps(asdict(outcome)).encode() + b"\n")
            self._file.flush()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # on a full disk what is buffered cannot be written
            self._file.close()


def read_journal(path: Path, keys: np.ndarray | None = None) -> Iterator[Outcome]:
    """The last outcome of each video, in the order of the lines.

    Args:
        path: of the journal; empty where there is none.
        keys: ascending `key_of` the videos that count; None = all.
    """
    wanted = _last_lines(path, keys)
    if not len(wanted):
        return
    with path.open("rb") as file:
        index = 0
        for place, line in enumerate(file):
            if place == wanted[index]:
                outcome = _parse(line)
                if outcome is not None:
                    yield outcome
                index += 1
                if index == len(wanted):
                    return


def _last_lines(path: Path, keys: np.ndarray | None) -> np.ndarray:
    """int64, ascending: the number of the last line of each video."""
    found, places = array("Q"), array("q")
    if path.is_file():
        with path.open("rb") as file:
            for place, line in enumerate(file):
                name = _name(line)
                if name is not None:
                    found.append(key_of(file_stem(name)))
                    places.append(place)
    numbers = np.array(found, np.uint64)
    known, last = np.unique(numbers[::-1], return_index=True)
    lines = np.array(places, np.int64)[::-1][last]
    return np.sort(lines if keys is None else lines[is_member(known, keys)])


def _name(line: bytes) -> str | None:
    """The name of the video of a line; None where the line was cut off."""
    try:
        name = json.loads(line)["id"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return name if isinstance(name, str) else None


def _parse(line: bytes) -> Outcome | None:
    try:
        values = json.loads(line)
        return Outcome(**values)
    except (ValueError, TypeError, RecursionError):
        return None
