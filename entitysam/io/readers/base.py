"""What every kind of input offers to `FrameSource`, and the one error for inputs that cannot be read."""

from abc import ABC, abstractmethod
from collections.abc import Generator

import numpy as np


class InputError(ValueError):
    """An input that cannot be segmented; the message names the file (or camera) and what is wrong with it."""


class Decoder(ABC):
    """One opened input. `frames` may be called again (a new pass) unless `is_live`.

    Attributes:
        width, height: size of every frame in pixels, after rotation.
        fps: frames per second before striding, None where the input has none (a folder of images).
        num_frames: estimated number of frames before striding, None where it cannot be known.
        is_live: frames come as they happen: there is no second pass.
        warnings: what went wrong in the last pass without stopping it; one line each.
    """

    width: int
    height: int
    fps: float | None
    num_frames: int | None
    is_live: bool
    warnings: list[str]

    @abstractmethod
    def frames(self, stride: int) -> Generator[np.ndarray, None, None]:
        """Every `stride`-th frame from the first on: uint8 [H, W, 3] RGB, decoded as the generator is advanced."""

    @abstractmethod
    def name(self, index: int) -> str:
        """Name of frame `index` (counted before striding), fit to be a file's stem."""

    def close(self) -> None:
        """Releases what is held between passes; most inputs hold nothing."""
        return


def composite_on_black(rgba: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 4] -> [H, W, 3]: transparent pixels become black, the value that padding has in training."""
    alpha = rgba[..., 3:].astype(np.uint16)
    return ((rgba[..., :3] * alpha + 127) // 255).astype(np.uint8)
