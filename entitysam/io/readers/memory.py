"""Frames that are already in memory, as an input."""

import itertools
from collections.abc import Generator, Iterable, Iterator, Sequence

import numpy as np
from PIL import Image

from entitysam.io.readers.base import Decoder, InputError
from entitysam.io.readers.images import to_rgb


class MemoryDecoder(Decoder):
    """Arrays uint8 [H, W, 3] RGB or PIL images of one size, from a sequence, an array [T, H, W, 3] or a generator.

    A generator can be read once; its number of frames is not known.

    Args:
        frames: at least one.
        fps: frames per second; None gives frames without times.

    Raises:
        InputError: no frames; here or while reading, a frame of another type, shape or size than the first.
    """

    is_live = False

    def __init__(self, frames: Iterable[np.ndarray | Image.Image], fps: float | None = None) -> None:
        self.fps = fps
        self.warnings: list[str] = []
        self._frames: Iterable[np.ndarray | Image.Image] | None = None
        self._iterator: Iterator[np.ndarray | Image.Image] | None = None
        if isinstance(frames, Sequence | np.ndarray):
            self._frames = frames
            self.num_frames = len(frames)
            first = next(iter(frames), None)
        else:
            iterator = iter(frames)
            first = next(iterator, None)
            self.num_frames = None
            self._iterator = itertools.chain([] if first is None else [first], iterator)
        if first is None:
            raise InputError("no frames")
        self.height, self.width = _as_rgb(first, 0).shape[:2]

    def name(self, index: int) -> str:
        return f"{index:05d}"

    def frames(self, stride: int) -> Generator[np.ndarray, None, None]:
        frames = self._frames
        if frames is None:
            frames, self._iterator = self._iterator, None
        if frames is None:
            raise InputError("the frames of a generator can be read only once; give a list")
        for index, frame in enumerate(frames):
            if index % stride == 0:
                rgb = _as_rgb(frame, index)
                if rgb.shape != (self.height, self.width, 3):
                    size = f"{rgb.shape[1]}x{rgb.shape[0]}"
                    raise InputError(f"frame {index}: is {size}, not {self.width}x{self.height} like the first frame")
                self.time = index / self.fps if self.fps else None
                yield rgb


def _as_rgb(frame: object, index: int) -> np.ndarray:
    if isinstance(frame, Image.Image):
        return to_rgb(frame)
    array = np.asarray(frame)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise InputError(f"frame {index}: must be a PIL image or uint8 [H, W, 3] RGB, not {array.dtype} {array.shape}")
    return array
