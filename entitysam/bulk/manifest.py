"""The manifest of a job: one row per video, in a Parquet file. The driver reads it in batches and keeps 8 bytes a video."""

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from entitysam.bulk.settings import Clip, Outcome
from entitysam.io.files import output_errors, whole_file
from entitysam.io.readers.base import InputError
from entitysam.io.record_store import file_stem

SCHEMA = pa.schema([("id", pa.string()), ("path", pa.string()), ("start", pa.float64()), ("end", pa.float64())])
BATCH = 5_000


def key_of(stem: str) -> int:
    """64 bits for the stem of a video's file. Two of 1,000,000 videos share them with a probability of 3e-8."""
    return int.from_bytes(blake2b(stem.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def keys_of(stems: Iterable[str]) -> np.ndarray:
    """uint64 [N] `key_of` each."""
    return np.fromiter(map(key_of, stems), np.uint64)


def identity_of(clip: Clip | Outcome) -> int:
    """64 bits for everything that makes a video of a job another one."""
    return key_of("\0".join(map(str, (clip.id, clip.path, clip.start, clip.end))))


def is_member(keys: np.ndarray, of: np.ndarray) -> np.ndarray:
    """bool [N] whether keys are in the ascending array `of`."""
    if not len(of):
        return np.zeros(len(keys), bool)
    return of[np.minimum(np.searchsorted(of, keys), len(of) - 1)] == keys


class Manifest:
    """The videos of a job.

    Attributes:
        keys, identities: uint64 [N] `key_of` and `identity_of` the videos, in the order of the rows.
        duplicates: rows that were left out because they name the video of another row.
    """

    def __init__(self, path: Path, keys: np.ndarray, identities: np.ndarray, duplicates: int = 0) -> None:
        self._path, self.keys, self.identities, self.duplicates = path, keys, identities, duplicates

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def write(cls, path: Path, clips: Iterable[Clip]) -> "Manifest":
        """Writes the manifest of a job, replacing an earlier one.

        A video that is named twice is one row.

        Raises:
            InputError: two videos have one name; the message has both. What `clips` raises.
            OutputError: the file cannot be written.
        """
        listed = path.with_name(f"listed-{path.name}")
        try:
            keys, identities = _write(listed, clips)
            repeated = _repeated(keys)
            if not repeated.any():
                with output_errors(path):
                    listed.replace(path)
                return cls(path, keys, identities)
            _check_names(listed, keys, repeated)
            rows = (clip for clip, twice in zip(_read(listed), repeated) if not twice)
            return cls(path, *_write(path, rows), int(repeated.sum()))
        finally:
            listed.unlink(missing_ok=True)

    def clips(self, without: np.ndarray) -> Iterator[Clip]:
        """The rows, less those whose keys are in an ascending array."""
        chosen = ~is_member(self.keys, without)
        return (clip for clip, wanted in zip(_read(self._path), chosen, strict=True) if wanted)

    def find(self, keys: np.ndarray) -> Iterator[Clip]:
        """The rows whose keys are in an ascending array."""
        chosen = is_member(self.keys, keys)
        return (clip for clip, wanted in zip(_read(self._path), chosen, strict=True) if wanted)


def _write(path: Path, clips: Iterable[Clip]) -> tuple[np.ndarray, np.ndarray]:
    """Writes the rows; returns their keys and identities."""
    keys, identities = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
    with whole_file(path) as temporary, pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer:
        for batch in _batches(clips):
            columns = {name: [getattr(clip, name) for clip in batch] for name in SCHEMA.names}
            try:
                writer.write_table(pa.table(columns, schema=SCHEMA))
            except UnicodeEncodeError as error:  # a file name of another system, as Python spells it
                raise InputError(f"{error.object!r}: the name of a file that is not UTF-8; rename it") from error
            keys.append(keys_of(file_stem(clip.id) for clip in batch))
            identities.append(np.fromiter(map(identity_of, batch), np.uint64, len(batch)))
    return np.concatenate(keys), np.concatenate(identities)


def _batches(clips: Iterable[Clip]) -> Iterator[list[Clip]]:
    batch: list[Clip] = []
    for clip in clips:
        batch.append(clip)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _read(path: Path) -> Iterator[Clip]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(BATCH):
            for row in zip(*(batch.column(name).to_pylist() for name in SCHEMA.names)):
                yield Clip(*row)


def _repeated(keys: np.ndarray) -> np.ndarray:
    """bool [N]: an earlier row has the same key."""
    order = np.argsort(keys, kind="stable")
    repeated = np.zeros(len(keys), bool)
    repeated[order[1:]] = keys[order[1:]] == keys[order[:-1]]
    return repeated


def _check_names(path: Path, keys: np.ndarray, repeated: np.ndarray) -> None:
    """Raises InputError where rows of one name are different videos."""
    wanted = np.unique(keys[repeated])
    chosen = is_member(keys, wanted)
    first: dict[str, Clip] = {}
    for clip, is_chosen in zip(_read(path), chosen):
        if is_chosen and first.setdefault(clip.id, clip) != clip:
            other = first[clip.id]
            raise InputError(
                f"two videos have the name '{clip.id}': {place_of(other)} and {place_of(clip)}; a manifest with a column "
                "'id' gives names"
            )


def place_of(clip: Clip) -> str:
    """The path of a video, and its section where it has one."""
    section = f" ({clip.start or 0:g} s to {'the end' if clip.end is None else f'{clip.end:g} s'})"
    return clip.path + (section if clip.start is not None or clip.end is not None else "")
