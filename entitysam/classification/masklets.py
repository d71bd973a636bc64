"""The masks of a video for labelling, stored as id maps or as tubes of run-length codes that may overlap."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np

from entitysam.ops import rle_area, rle_decode

MaskOf = Callable[[int], np.ndarray]  # id 1..n -> bool [H, W]


class Masklets(Protocol):
    """n masklets over T frames."""

    @property
    def num_entities(self) -> int:
        """n."""

    def areas(self) -> np.ndarray:
        """Visible pixels, int64 [n, T]."""

    def frames(self) -> Iterator[MaskOf]:
        """Per frame in order: a function from id to mask."""


class MapMasklets:
    """Masklets stored as id maps.

    Args:
        maps: returns, at each call, the maps of the frames in order, int [H, W] with ids 1..n, 0 = none.
        num_entities: n.
    """

    def __init__(self, maps: Callable[[], Iterable[np.ndarray]], num_entities: int) -> None:
        self._maps = maps
        self.num_entities = num_entities

    def areas(self) -> np.ndarray:
        """See `Masklets`.

        Raises:
            ValueError: an id above n.
        """
        columns = []
        for frame, ids in enumerate(self._maps()):
            highest = int(ids.max(initial=0))
            if highest > self.num_entities:  # checked before `bincount` allocates by id
                raise ValueError(
                    f"frame {frame}: the map has id {highest}, but only {self.num_entities} entities have a score"
                )
            columns.append(np.bincount(ids.ravel(), minlength=self.num_entities + 1)[1:])
        return np.stack(columns, axis=1) if columns else np.zeros((self.num_entities, 0), np.int64)

    def frames(self) -> Iterator[MaskOf]:
        for ids in self._maps():
            yield partial(np.equal, ids)


class TubeMasklets:
    """Masklets stored as run-length codes.

    Args:
        tubes: per masklet and frame a COCO run-length code, None where it is not visible.
    """

    def __init__(self, tubes: Sequence[Sequence[Mapping[str, Any] | None]]) -> None:
        self._tubes = tubes
        self.num_entities = len(tubes)

    def areas(self) -> np.ndarray:
        length = len(self._tubes[0]) if self._tubes else 0
        areas = np.zeros((len(self._tubes), length), np.int64)
        for row, tube in zip(areas, self._tubes, strict=True):
            row[:] = [0 if code is None else rle_area(dict(code)) for code in tube]
        return areas

    def frames(self) -> Iterator[MaskOf]:
        for frame in range(len(self._tubes[0]) if self._tubes else 0):
            yield partial(self._mask, frame)

    def _mask(self, frame: int, entity: int) -> np.ndarray:
        code = self._tubes[entity - 1][frame]
        assert code is not None  # `choose_frames` selects only frames with an area
        return rle_decode(dict(code))
