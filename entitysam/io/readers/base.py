"""The interface of all inputs, and the error for inputs that cannot be read."""

from abc import ABC, abstractmethod
from collections.abc import Generator
from pathlib import Path

import numpy as np


class InputError(ValueError):
    """An input that cannot be read; the message names the file (or camera) and the reason."""


class Decoder(ABC):
    """One opened input. `frames` may be called again (a new pass) unless `is_live`.

    Attributes:
        width, height: size of every frame in pixels, after rotation.
        fps: frames per second before striding, None where the input has none (a folder of images).
        num_frames: estimated number of frames before striding, None where it cannot be known.
        is_live: frames arrive in real time and there is no second pass.
        warnings: problems of the last pass that did not stop it; one line each.
        files: local files that are read.
        time: seconds from the first frame to the frame that `frames` yielded last; None where the input has no times.
    """

    width: int
    height: int
    fps: float | None
    num_frames: int | None
    is_live: bool
    warnings: list[str]
    files: list[Path] = []
    time: float | None = None

    @abstractmethod
    def frames(self, stride: int) -> Generator[np.ndarray, None, None]:
        """Yields every `stride`-th frame, the first included: uint8 [H, W, 3] RGB, decoded as the generator advances."""

    @abstractmethod
    def name(self, index: int) -> str:
        """Name of frame `index` (counted before striding), fit to be a file's stem."""

    def stop(self) -> None:
        """Ends the current pass soon; for live inputs, which may wait for frames. May be called from another thread."""
        return

    def close(self) -> None:
        """Releases what is held between passes; most inputs hold nothing."""
        return


def composite_on_black(rgba: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 4] -> [H, W, 3]: transparent pixels become black, the value of padding in training."""
    alpha = rgba[..., 3:].astype(np.uint16)
    return ((rgba[..., :3] * alpha + 127) // 255).astype(np.uint8)
