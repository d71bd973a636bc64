"""Cameras, through OpenCV."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager

import cv2
import numpy as np

from entitysam.io.readers.base import Decoder, InputError


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps OpenCV from printing its own account of a camera that is not there."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


class CameraDecoder(Decoder):
    """Frames of camera `index` until it stops giving any.

    Raises:
        InputError: there is no such camera, or it gives no picture.
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
            raise InputError(f"camera {index}: cannot be opened (not there, in use, or not permitted)")
        self.height, self.width = first.shape[:2]
        rate = float(self._capture.get(cv2.CAP_PROP_FPS))
        self.fps = rate if 0 < rate <= 1000 else None  # drivers that do not know say 0, -1 or nonsense

    def name(self, index: int) -> str:
        return f"{index:05d}"

    def frames(self, stride: int) -> Generator[np.ndarray, None, None]:
        index = 0
        while self._capture.grab():
            if index % stride == 0:
                works, bgr = self._capture.retrieve()
                if not works:
                    return
                yield cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
            index += 1

    def close(self) -> None:
        self._capture.release()
