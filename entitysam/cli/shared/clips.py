"""Frames that are already in memory, as an input."""

from collections.abc import Generator

import numpy as np

from entitysam.io.readers.base import Decoder


class ClipDecoder(Decoder):
    """A clip, uint8 [T, H, W, 3] RGB, that plays at `fps` frames per second."""

    is_live = False

    def __init__(self, clip: np.ndarray, fps: float) -> None:
        self._clip = clip
        self.num_frames, self.height, self.width = clip.shape[:3]
        self.fps = fps
        self.warnings: list[str] = []

    def frames(self, stride: int) -> Generator[np.ndarray, None, None]:
        yield from self._clip[::stride]

    def name(self, index: int) -> str:
        return f"{index:05d}"
