"""The frames of a video on their way to the network: counted, and one of them kept for a small picture."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from entitysam.io.files import whole_file
from entitysam.io.readers.base import InputError
from entitysam.io.readers.source import FrameSource
from entitysam.visualization.overlay import draw_entities

WIDTH = 320  # pixels
PERIOD = 1.0  # seconds between two counts


class WatchedFrames:
    """Iterates over the frames of a source once.

    Args:
        source: of the frames.
        on_frames: called with a number of frames, about once a second.
        title: of the source, for messages.

    Attributes:
        num_frames: as the source estimates it.
    """

    def __init__(self, source: FrameSource, on_frames: Callable[[int], None], title: str) -> None:
        self._source, self._on_frames, self._title = source, on_frames, title
        self.num_frames = source.num_frames
        self._chosen = (source.num_frames or 1) // 2
        self._kept: tuple[int, np.ndarray] | None = None
        self._ids: np.ndarray | None = None

    def __iter__(self) -> Iterator[np.ndarray]:
        """The frames.

        Raises:
            InputError: there are none.
        """
        counted, last = 0, time.monotonic()
        for index, frame in enumerate(self._source):
            if index in (0, self._chosen):  # a video may be shorter than it says
                self._kept = index, _shrunk(frame, cv2.INTER_AREA)
            yield frame
            counted += 1
            if time.monotonic() - last > PERIOD:
                self._on_frames(counted)
                counted, last = 0, time.monotonic()
        self._on_frames(counted)
        if self._kept is None:
            raise InputError(f"{self._title}: no frames to segment")

    def keep_ids(self, index: int, ids: np.ndarray) -> None:
        """Keeps the map int [H, W] of the frame for the picture."""
        if self._kept is not None and index == self._kept[0]:
            self._ids = _shrunk(ids, cv2.INTER_NEAREST)

    def write_preview(self, path: Path) -> None:
        """Writes the frame and beside it the frame with its entities as JPEG."""
        if self._kept is None or self._ids is None:
            return
        frame = self._kept[1]
        both = np.concatenate([frame, draw_entities(frame, self._ids, labels=False)], axis=1)
        with whole_file(path) as temporary:
            Image.fromarray(both).save(temporary, format="JPEG", quality=80)


def _shrunk(pixels: np.ndarray, interpolation: int) -> np.ndarray:
    height, width = pixels.shape[:2]
    if width <= WIDTH:
        return pixels.copy()
    return cv2.resize(pixels, (WIDTH, max(1, round(height * WIDTH / width))), interpolation=interpolation)
