"""Methods that look at no pixel: what a metric gives to nothing."""

from collections.abc import Iterable

import numpy as np

from entitysam.engine.methods.streamed import StreamedVideo
from entitysam.registry import METHODS, ConfigError


@METHODS.register("whole_frame")
class WholeFrame:
    """One entity that covers the whole frame."""

    def segment(self, frames: Iterable[np.ndarray], out_size: tuple[int, int]) -> StreamedVideo:
        return StreamedVideo((np.ones(out_size, np.int32), {1: 1.0}) for _ in frames)


@METHODS.register("grid")
class Grid:
    """One entity per cell of a fixed grid.

    Args:
        cells: number of cells along each axis.
    """

    def __init__(self, cells: int = 4) -> None:
        if cells < 1:
            raise ConfigError(f"method 'grid': {cells} cells; there must be 1 or more")
        self.cells = cells

    def segment(self, frames: Iterable[np.ndarray], out_size: tuple[int, int]) -> StreamedVideo:
        rows, columns = (np.arange(side) * self.cells // side for side in out_size)
        ids = (rows[:, None] * self.cells + columns + 1).astype(np.int32)
        scores = dict.fromkeys(np.unique(ids).tolist(), 1.0)
        return StreamedVideo((ids, scores) for _ in frames)
