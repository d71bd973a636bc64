"""Frames of a video, a folder or glob of images, an image, a camera, a stream, a pipe, or of arrays in memory.

Decoding is lazy and happens in a background thread, a few frames ahead of the consumer, without temporary files.
"""

import glob
import math
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from types import TracebackType

import numpy as np
from PIL import Image

from entitysam.io.readers.base import Decoder, InputError
from entitysam.io.readers.camera import CameraDecoder
from entitysam.io.readers.images import SUFFIXES, list_images, open_images
from entitysam.io.readers.memory import MemoryDecoder
from entitysam.io.readers.prefetch import Prefetcher
from entitysam.io.readers.stream import LIVE_PROTOCOLS, StreamDecoder, open_pipe
from entitysam.io.readers.video import VideoDecoder

__all__ = ["FrameSource", "InputError", "open_frames"]

Source = str | Path | int | Iterable[np.ndarray | Image.Image]
LIVE_PATIENCE = 1.0  # seconds that closing waits for a live input
WHOLE = (0.0, math.inf)  # seconds: the section that is the whole video
PREFETCH = 4  # frames kept ready: enough to hide decoding behind the network, 25 MB at 1920x1080


def open_frames(
    source: Source,
    *,
    stride: int = 1,
    max_frames: int | None = None,
    start: float | None = None,
    end: float | None = None,
    drop_stale: bool = False,
) -> "FrameSource":
    """Opens an input and reads its first frame.

    Args:
        source: a video file or stream address that FFmpeg reads; a folder or glob of images (natural order); an image,
            with all its pages where it has several; a camera's number (0, or "0" where no file has that name); "-" for a
            video on standard input, "raw:640x480@30" for RGB pixels there (see `stream`); a list, array [T, H, W, 3] or
            generator of uint8 [H, W, 3] RGB arrays or PIL images.
        stride: take every `stride`-th frame, the first included.
        max_frames: stop after this many frames (counted after striding and from `start` on).
        start, end: seconds from the first frame; of the frames that striding leaves, only those with start <= time < end
            are given. Frames in front of them are decoded, too.
        drop_stale: live inputs only: when the consumer is slow, give it the newest frame and drop those between.

    Raises:
        InputError: missing or empty input, not a video or image, no frames, images of different sizes; `start` or `end`
            of an input that has no times.
    """
    if stride < 1:
        raise InputError(f"stride must be at least 1, not {stride}")
    if max_frames is not None and max_frames < 1:
        raise InputError(f"max_frames must be at least 1, not {max_frames}")
    section = (0.0 if start is None else start, math.inf if end is None else end)
    if not 0 <= section[0] < section[1]:
        raise InputError(f"{source}: a section from {section[0]:g} s to {section[1]:g} s has no frames")
    decoder = _open_decoder(source)
    if drop_stale and not decoder.is_live:
        decoder.close()
        raise InputError(f"{source}: frames can be dropped only for a camera or live stream")
    if section != WHOLE and (decoder.fps is None or decoder.is_live):
        decoder.close()
        raise InputError(f"{source}: frames without times have no start and end in seconds")
    return FrameSource(decoder, stride, max_frames, drop_stale, section)


class FrameSource:
    """An iterable of frames, uint8 [H, W, 3] RGB, all of one size; each `iter` starts a new pass at the first frame.

    Also a context manager. A second pass over a live input continues where the first one stopped.

    Attributes:
        width, height: of every frame, in pixels.
        fps: frames per second that a pass gives (after striding), None where the input has no rate.
        num_frames: estimated number of frames of a pass, None where it cannot be known.
        is_live: a camera or live stream: frames arrive in real time.
        files: local files that are read.
        decoder, stride: what reads the input, and the step between the frames that are taken.
    """

    def __init__(
        self,
        decoder: Decoder,
        stride: int = 1,
        max_frames: int | None = None,
        drop_stale: bool = False,
        section: tuple[float, float] = WHOLE,
    ):
        self.decoder = decoder
        self.stride = stride
        self._max_frames = max_frames
        self._drop_stale = drop_stale
        self._section = section
        self._skipped = 0  # frames of the current pass in front of the section
        self._pass: Prefetcher[tuple[np.ndarray, float | None]] | None = None
        self._times: list[float | None] = []
        self.width = decoder.width
        self.height = decoder.height
        self.is_live = decoder.is_live
        self.fps = decoder.fps / stride if decoder.fps else None
        self.files = decoder.files

    @property
    def decoded(self) -> int:
        """Number of frames that the current pass has given so far."""
        return len(self._times)

    @property
    def num_frames(self) -> int | None:
        total = self.decoder.num_frames
        if total is None:
            return self._max_frames
        total = -(-total // self.stride)
        if self._section != WHOLE and self.fps:
            first, end = (math.ceil(min(total, seconds * self.fps)) for seconds in self._section)
            total = end - first
        return total if self._max_frames is None else min(total, self._max_frames)

    @property
    def warnings(self) -> list[str]:
        """Problems of the last pass, e.g. "clip.mp4: 3 of 40 frames could not be decoded"; complete at its end."""
        dropped = self.dropped
        stale = [f"{dropped} of {dropped + self.decoded} frames were dropped: newer ones were there"] if dropped else []
        return [*self.decoder.warnings, *stale]

    @property
    def dropped(self) -> int:
        """Number of frames that the current pass has dropped because newer ones were there."""
        return 0 if self._pass is None else self._pass.dropped

    def name(self, index: int) -> str:
        """Name of the `index`-th frame of a pass: an image's stem, otherwise its number in the video ("00000").

        In a section, only of frames that the current pass has given.
        """
        return self.decoder.name((self._skipped + index) * self.stride)

    def time(self, index: int) -> float | None:
        """Seconds from the first frame to the `index`-th frame of the current pass, which must have been given.

        None where the input has no times (a folder of images).
        """
        return self._times[index]

    def __iter__(self) -> Iterator[np.ndarray]:
        self._end_pass()
        depth = 1 if self._drop_stale else PREFETCH
        patience = LIVE_PATIENCE if self.is_live else None
        self._pass = Prefetcher(self._decode(), depth, self._drop_stale, patience)
        self._times = []
        return self._consume(self._pass, self._times)

    def _decode(self) -> Generator[tuple[np.ndarray, float | None], None, None]:
        self._skipped = 0
        with closing(self.decoder.frames(self.stride)) as frames:
            yield from islice(self._timed(frames), self._max_frames)

    def _timed(self, frames: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, float | None]]:
        """The frames of the section with their times."""
        start, end = self._section
        for frame in frames:
            time = self.decoder.time
            if time is not None and time >= end:
                return
            if time is None or time >= start:
                yield frame, time
            else:
                self._skipped += 1

    def _consume(
        self, frames: Prefetcher[tuple[np.ndarray, float | None]], times: list[float | None]
    ) -> Iterator[np.ndarray]:
        try:
            for frame, time in frames:
                times.append(time)
                yield frame
        finally:
            frames.close()

    def _end_pass(self) -> None:
        if self._pass is not None:
            self._pass.close()
            self._pass = None

    def end(self) -> None:
        """Ends the current pass after the frames that are ready, also while it waits for one; for live inputs.

        May be called from another thread or a signal handler.
        """
        self.decoder.stop()
        if self._pass is not None:
            self._pass.end()

    def close(self) -> None:
        """Stops decoding and releases the input."""
        self.decoder.stop()
        self._end_pass()
        self.decoder.close()

    def __enter__(self) -> "FrameSource":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _open_decoder(source: Source) -> Decoder:
    if isinstance(source, int):
        return CameraDecoder(source)
    if not isinstance(source, str | Path):
        return MemoryDecoder(source)
    text, path = str(source), Path(source)
    if text == "-" or (text.startswith("raw:") and not path.exists()):
        return open_pipe(text)
    if "://" in text:
        return _open_address(text)
    if path.is_dir():
        return open_images(list_images(path), label=text)
    if not path.exists():
        if text.isdecimal():
            return CameraDecoder(int(text))
        if glob.has_magic(text):
            return open_images(list_images(text), label=text)
        raise InputError(f"{source}: no such file or folder")
    if path.stat().st_size == 0 and path.is_file():
        raise InputError(f"{source}: the file is empty")
    if path.suffix.lower() in SUFFIXES:
        return open_images([path], label=path.name)
    return VideoDecoder(path)


def _open_address(text: str) -> Decoder:
    """A live stream, or a video file behind an address: one that states how long it is."""
    protocol = text.split("://")[0].lower()
    if protocol in LIVE_PROTOCOLS:
        return StreamDecoder(text)
    if protocol in ("http", "https"):
        stream = StreamDecoder(text)  # opened once: a server may serve a single connection
        if not stream.has_end:
            return stream
        stream.close()
    return VideoDecoder(text)
