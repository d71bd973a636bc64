"""Frames of anything that can be segmented: a video, a folder or glob of images, an image, a camera, a stream.

Decoding is lazy and happens in a background thread, a few frames ahead of the consumer; no temporary files.
"""

from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from types import TracebackType

import numpy as np

from entitysam.io.readers.base import Decoder, InputError
from entitysam.io.readers.camera import CameraDecoder
from entitysam.io.readers.images import SUFFIXES, ImagesDecoder, list_images
from entitysam.io.readers.prefetch import ReadAhead
from entitysam.io.readers.video import VideoDecoder

__all__ = ["FrameSource", "InputError", "open_frames"]

READ_AHEAD = 4  # frames kept ready: enough to hide decoding behind the network, 25 MB at 1920x1080


def open_frames(
    source: str | Path | int,
    *,
    stride: int = 1,
    max_frames: int | None = None,
    drop_stale: bool = False,
) -> "FrameSource":
    """Opens an input and reads its first frame.

    Args:
        source: a video file or stream address that FFmpeg reads; a folder or glob of images (natural order); an image;
            a camera's number (0, or "0" where no file has that name).
        stride: take every `stride`-th frame, the first included.
        max_frames: stop after so many frames (counted after striding).
        drop_stale: live inputs only: when the consumer is slow, give it the newest frame and forget those between.

    Raises:
        InputError: nothing there, empty, not a video or image, no frames, images of different sizes.
    """
    if stride < 1:
        raise InputError(f"stride must be at least 1, not {stride}")
    if max_frames is not None and max_frames < 1:
        raise InputError(f"max_frames must be at least 1, not {max_frames}")
    decoder = _open_decoder(source)
    if drop_stale and not decoder.is_live:
        decoder.close()
        raise InputError(f"{source}: only frames of a camera or live stream can be dropped as stale")
    return FrameSource(decoder, stride, max_frames, drop_stale)


class FrameSource:
    """An iterable of frames, uint8 [H, W, 3] RGB, all of one size; each `iter` is a new pass from the first frame.

    Also a context manager. The second pass over a live input goes on where the first one stopped.

    Attributes:
        width, height: of every frame, in pixels.
        fps: frames per second that a pass gives (after striding), None where the input has no rate.
        num_frames: estimated number of frames of a pass, None where it cannot be known.
        is_live: a camera or live stream: frames come as they happen.
        decoded: frames that the current pass has given so far.
    """

    def __init__(self, decoder: Decoder, stride: int = 1, max_frames: int | None = None, drop_stale: bool = False):
        self._decoder = decoder
        self._stride = stride
        self._max_frames = max_frames
        self._drop_stale = drop_stale
        self._pass: ReadAhead[np.ndarray] | None = None
        self.width = decoder.width
        self.height = decoder.height
        self.is_live = decoder.is_live
        self.fps = decoder.fps / stride if decoder.fps else None
        self.decoded = 0

    @property
    def num_frames(self) -> int | None:
        total = self._decoder.num_frames
        if total is None:
            return self._max_frames
        total = -(-total // self._stride)
        return total if self._max_frames is None else min(total, self._max_frames)

    @property
    def warnings(self) -> list[str]:
        """What was lost in the last pass, e.g. "clip.mp4: 3 of 40 frames could not be decoded"; complete at its end."""
        return self._decoder.warnings

    def name(self, index: int) -> str:
        """Name of the `index`-th frame of a pass: an image's stem, otherwise its number in the video ("00000")."""
        return self._decoder.name(index * self._stride)

    def __iter__(self) -> Iterator[np.ndarray]:
        self._end_pass()
        depth = 1 if self._drop_stale else READ_AHEAD
        self._pass = ReadAhead(self._decode(), depth, newest_only=self._drop_stale)
        self.decoded = 0
        return self._counted(self._pass)

    def _decode(self) -> Generator[np.ndarray, None, None]:
        with closing(self._decoder.frames(self._stride)) as frames:
            yield from islice(frames, self._max_frames)

    def _counted(self, frames: ReadAhead[np.ndarray]) -> Iterator[np.ndarray]:
        try:
            for frame in frames:
                self.decoded += 1
                yield frame
        finally:
            frames.close()

    def _end_pass(self) -> None:
        if self._pass is not None:
            self._pass.close()
            self._pass = None

    def close(self) -> None:
        """Stops decoding and releases the input."""
        self._end_pass()
        self._decoder.close()

    def __enter__(self) -> "FrameSource":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _open_decoder(source: str | Path | int) -> Decoder:
    if isinstance(source, int):
        return CameraDecoder(source)
    text, path = str(source), Path(source)
    if "://" in text:
        return VideoDecoder(text)
    if path.is_dir():
        return ImagesDecoder(list_images(path), label=text)
    if not path.exists():
        if text.isdecimal():
            return CameraDecoder(int(text))
        if any(character in text for character in "*?["):
            return ImagesDecoder(list_images(text), label=text)
        raise InputError(f"{source}: no such file or folder")
    if path.stat().st_size == 0 and path.is_file():
        raise InputError(f"{source}: the file is empty")
    if path.suffix.lower() in SUFFIXES:
        return ImagesDecoder([path], label=path.name)
    return VideoDecoder(path)
