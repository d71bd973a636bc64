"""Keyed records of an unfinished run, so that an interrupted run continues where it stopped.

One store serves every resumable run: mask logits and scores of a video, frames of an online run, cached detections, videos of
an evaluation. A record is one file, which appears whole or not at all; several processes may write different records at
the same time.
"""

import json
import re
import shutil
import struct
import zlib
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from entitysam.errors import ConfigError
from entitysam.io.files import make_folder, whole_file

SUFFIX = ".rec"
FINGERPRINT = "run.json"
FORMAT = 2  # changes when records of an earlier version cannot be read
HEADER = struct.Struct("<4sIQ")  # magic, CRC-32 of key and payload, bytes of the payload
MAGIC = b"ESR2"
PLAIN_KEY = re.compile(r"[a-z0-9_]{1,60}")


class RecordStore:
    """Records of one run by key.

    Args:
        folder: created where it is not there.

    Attributes:
        continues: whether the store was opened with records of an interrupted run (see `start`).

    Raises:
        OutputError: the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = make_folder(folder)
        self.continues = False

    @classmethod
    def start(cls, folder: Path, fingerprint: Mapping[str, Any], resume: bool) -> "RecordStore":
        """Opens the store of a new run, or of an interrupted run that is resumed.

        Args:
            folder: of the store. Records of an earlier run are removed unless `resume`.
            fingerprint: everything that determines the result (input, settings, weights), as plain data.
            resume: keep the records that are there.

        Raises:
            ConfigError: the interrupted run had another fingerprint; the message names the first difference.
            OutputError: the folder cannot be written to.
        """
        current = json.loads(json.dumps({"format": FORMAT, **fingerprint}, default=str))
        path = folder / FINGERPRINT
        if resume and path.is_file():
            problem = _mismatch(path, current)
            if problem:
                raise ConfigError(f"{folder}: cannot resume, {problem}; start without --resume")
            store = cls(folder)
            store.continues = True
            return store
        store = cls(folder)
        store.clear()
        with whole_file(path) as temporary:
            temporary.write_text(json.dumps(current, indent=1), encoding="utf-8")
        return store

    def write(self, key: str, payload: bytes) -> None:
        """Writes a record, replacing an earlier one under the same key.

        Raises:
            OutputError: it cannot be written, e.g. because the disk is full; the message names the file.
        """
        header = HEADER.pack(MAGIC, _checksum(key, payload), len(payload))
        with whole_file(self._path(key)) as temporary, temporary.open("wb") as file:
            file.write(header)
            file.write(payload)

    def read(self, key: str) -> bytes | None:
        """The payload of a record; None where there is none or the file is damaged."""
        try:
            content = self._path(key).read_bytes()
        except OSError:
            return None
        if len(content) < HEADER.size:
            return None
        magic, checksum, length = HEADER.unpack_from(content)
        payload = content[HEADER.size :]
        if magic != MAGIC or length != len(payload) or checksum != _checksum(key, payload):
            return None
        return payload

    def write_json(self, key: str, value: Any) -> None:
        """Writes plain data as a record; see `write`."""
        self.write(key, json.dumps(value).encode())

    def read_json(self, key: str) -> Any:
        """The plain data of a record; None where there is none or the file is damaged."""
        payload = self.read(key)
        return None if payload is None else json.loads(payload)

    def __len__(self) -> int:
        """Number of records."""
        return sum(1 for _ in self._files())

    def clear(self) -> None:
        """Removes all records."""
        for file in self._files():
            file.unlink(missing_ok=True)

    def remove(self) -> None:
        """Removes the store with its folder: the run is complete."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _files(self) -> Iterator[Path]:
        return self.folder.glob(f"*{SUFFIX}")

    def _path(self, key: str) -> Path:
        return self.folder / (file_stem(key) + SUFFIX)


def file_stem(key: str) -> str:
    """A file name for a key, different for different keys on every file system.

    Keys of lower-case letters, digits and `_` are their own names; others are shortened and carry a hash.
    """
    if PLAIN_KEY.fullmatch(key):
        return key
    readable = re.sub(r"[^A-Za-z0-9_]", "_", key)[:40]
    return f"{readable}-{sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def _checksum(key: str, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(key.encode("utf-8", "surrogatepass")))


def _mismatch(path: Path, current: dict[str, Any]) -> str:
    """Why the run of a fingerprint file cannot be continued; empty where it can."""
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return f"{path.name} is damaged"
    if not isinstance(before, dict) or before.get("format") != FORMAT:
        return "the unfinished run was made by another version of entitysam"
    difference = first_difference(before, current)
    return f"the unfinished run was another one ({difference})" if difference else ""


def first_difference(before: Any, now: Any, where: str = "") -> str:
    """The first place where two pieces of plain data differ, in words; empty where they are equal."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(key for key in now if key not in before)]:
            difference = first_difference(before.get(key), now.get(key), f"{where}.{key}" if where else str(key))
            if difference:
                return difference
        return ""
    if before == now:
        return ""
    old, new = (text if len(text) < 40 else "..." for text in (json.dumps(before), json.dumps(now)))
    return f"{where} changed" if "..." in (old, new) else f"{where} was {old}, is {new}"


def file_fingerprint(source: str | Path) -> list[Any]:
    """Identifies the content of an input: absolute path, and name, size and time of the file or of every file in a folder.

    What is not on the disk (an address, a word such as "random") stands for itself.
    """
    path = Path(source)
    if not path.exists():
        return [str(source)]
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    return [str(path.resolve()), [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in files]]
