"""Reads cameras through OpenCV."""

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np

from entitysam.io.readers.base import Decoder, InputError

SILENT = 0  # OpenCV's LOG_LEVEL_SILENT


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses OpenCV's own messages about a missing camera."""
    logs: Any = getattr(cv2.utils, "logging", cv2)  # OpenCV 4 has these functions at its top level
    level = logs.getLogLevel()
    logs.setLogLevel(SILENT)
    try:
        yield
    finally:
        logs.setLogLevel(level)


class CameraDecoder(Decoder):
    """Frames of camera `index` until it stops giving any; times are those of the grab.

    Raises:
        InputError: there is no such camera, or it gives no image.
    """

    num_frames = None
    is_live = True

    def __init__(self, index: int) -> None:
        self.index = index
        self.warnings: list[str] = []
        with _quiet():
            self._capture = cv2.VideoCapture(index)
            first = self._capture.read()[1] if self._capture.isOpened() else None
        if first is None:
            self._capture.release()
            raise InputError(f"camera {index}: cannot be opened (missing, in use, or not permitted)")
        self.height, self.width = first.shape[:2]
        rate = float(self._capture.get(cv2.CAP_PROP_FPS))
        self.fps = rate if 0 < rate <= 1000 else None  # drivers return 0, -1 or other values where it is not known

    def name(self, index: int) -> str:
        return f"{index:05d}"

    def frames(self, stride: int) -> Generator[np.ndarray, None, None]:
        index, start = 0, None
        while self._capture.grab():
            if index % stride == 0:
                now = time.monotonic()
                start = now if start is None else start
                works, bgr = self._capture.retrieve()
                if not works:
                    return
                self.time = now - start
                yield cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
            index += 1

    def close(self) -> None:
        self._capture.release()
