"""What the page gets in bulk: id maps as runs, frames as JPEG, lanes of the timeline. All numbers are little-endian.

maps     uint32 count, then per frame: uint32 n, uint32 [n] ids, uint32 [n] lengths of runs, row by row
frames   uint32 count, then per frame: uint32 number of bytes, a JPEG
lanes    uint8 [entities, frames]: 0 = not visible, else 1 + 254 x score
"""

import gzip
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from threading import Lock
from typing import Any

import cv2
import numpy as np

JPEG_QUALITY = 88
MAX_SIDE = 1920  # of the frames that are sent; id maps keep their size


@dataclass(frozen=True)
class Runs:
    """An id map row by row: `ids` uint32 [n] and `lengths` uint32 [n] of its runs."""

    ids: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(cls, id_map: np.ndarray) -> "Runs":
        flat = np.ascontiguousarray(id_map).reshape(-1)
        starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
        lengths = np.diff(np.append(starts, flat.size))
        return cls(flat[starts].astype("<u4"), lengths.astype("<u4"))

    def expand(self, shape: tuple[int, int]) -> np.ndarray:
        """int32 [H, W]."""
        return np.repeat(self.ids.astype(np.int32), self.lengths).reshape(shape)

    def areas(self) -> dict[int, int]:
        """Pixels of each id but 0."""
        ids, place = np.unique(self.ids, return_inverse=True)
        totals = np.bincount(place, weights=self.lengths)
        return {int(i): int(total) for i, total in zip(ids, totals) if i}

    @property
    def nbytes(self) -> int:
        return self.ids.nbytes + self.lengths.nbytes


def pack_maps(maps: Iterable[Runs]) -> bytes:
    """Maps as the page reads them, compressed by gzip."""
    parts = []
    for runs in maps:
        parts += [np.array([len(runs.ids)], "<u4").tobytes(), runs.ids.tobytes(), runs.lengths.tobytes()]
    return _gzip(np.array([len(parts) // 3], "<u4").tobytes() + b"".join(parts))


def pack_frames(images: Iterable[bytes]) -> bytes:
    parts = list(images)
    sizes = [np.array([len(part)], "<u4").tobytes() for part in parts]
    return np.array([len(parts)], "<u4").tobytes() + b"".join(b for pair in zip(sizes, parts) for b in pair)


def pack_lanes(scores: Iterable[np.ndarray], areas: Iterable[np.ndarray]) -> bytes:
    """Lanes of entities, compressed by gzip; scores [T] in 0..1 and areas [T] of each."""
    lanes = [
        np.where(area > 0, 1 + np.round(254 * score.clip(0, 1)), 0).astype(np.uint8)
        for score, area in zip(scores, areas)
    ]
    return _gzip(b"".join(lane.tobytes() for lane in lanes))


def encode_jpeg(frame: np.ndarray) -> bytes:
    """A frame uint8 [H, W, 3] RGB as JPEG, scaled down to `MAX_SIDE`."""
    scale = MAX_SIDE / max(frame.shape[:2])
    if scale < 1:
        frame = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    works, data = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not works:
        raise ValueError("the frame cannot be encoded")
    return data.tobytes()


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, compresslevel=1, mtime=0)


class ByteCache:
    """The values used last, up to a number of bytes. For several threads."""

    def __init__(self, max_bytes: int):
        self._max_bytes = max_bytes
        self._bytes = 0
        self._values: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable) -> Any:
        """The value, or None."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def put(self, key: Hashable, value: Any, size: int) -> None:
        with self._lock:
            if key in self._values:
                self._bytes -= self._values.pop(key)[1]
            self._values[key] = value, size
            self._bytes += size
            while self._bytes > self._max_bytes and len(self._values) > 1:
                self._bytes -= self._values.popitem(last=False)[1][1]
