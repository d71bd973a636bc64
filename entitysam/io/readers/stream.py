"""Reads live inputs that arrive once: network streams, and pipes on standard input."""

import re
import sys
import threading
import time
from collections.abc import Generator, Iterator
from typing import Any

import av
import numpy as np

from entitysam.io.readers.base import Decoder, InputError
from entitysam.io.readers.video import NOT_VIDEO, Upright, stated_duration, video_stream

LIVE_PROTOCOLS = ("rtsp", "rtsps", "rtp", "rtmp", "udp", "srt", "tcp")
PIPE = "pipe:0"
RAW = re.compile(r"raw:(\d+)x(\d+)(?:@(\d+(?:\.\d+)?))?")
READ_TIMEOUT = 10.0  # seconds without data after which a connection counts as lost
PATIENCE = 60.0  # seconds without a frame after which a stream has ended
DELAYS = (0.5, 8.0)  # seconds until the first attempt to connect again, doubled after each, up to the second value
MAX_GAP = 10.0  # seconds: a larger step of a stream's clock that the local clock does not show is a jump
# Streams of cameras lose packets over UDP, which damages images: TCP where the server has it.
OPTIONS = {"rtsp_flags": "prefer_tcp", "analyzeduration": "2000000"}


class StreamClock:
    """Times of frames that never go back, from time stamps that may.

    Args:
        now: seconds of a clock that does not jump.
    """

    def __init__(self, now: float) -> None:
        self.time = 0.0
        self.jumps = 0
        self._stamp: float | None = None
        self._now = now
        self._is_first = True

    def restart(self) -> None:
        """The next time stamp has nothing to do with the last one."""
        self._stamp = None

    def step(self, stamp: float | None, now: float) -> float:
        """Adds a frame; returns seconds from the first frame.

        Args:
            stamp: seconds, the stream's time stamp of the frame; None where it has none.
            now: seconds, when the frame arrived.
        """
        waited = max(now - self._now, 0.0)
        if stamp is None or self._stamp is None:
            step = waited
        else:
            step = stamp - self._stamp
            if step <= 0 or (step > MAX_GAP and abs(step - waited) > step / 2):
                self.jumps, step = self.jumps + 1, waited
        self.time += 0.0 if self._is_first else max(step, 1e-3)
        self._stamp, self._now, self._is_first = stamp, now, False
        return self.time


class StreamDecoder(Decoder):
    """Frames of a network stream, or of a pipe on standard input, as they arrive.

    A network stream that ends or gives no data for `READ_TIMEOUT` is opened again, with growing delays, until no frame has
    come for `PATIENCE`. Damaged packets are skipped, frames of another size than the first are scaled to it. Times are those
    of the stream; across lost connections and jumps of its clock they go on by the local clock.

    Args:
        address: for FFmpeg; "pipe:0" = standard input, in any format that FFmpeg reads from a pipe.

    Attributes:
        has_end: the stream states its duration, so that it is a file.

    Raises:
        InputError: it cannot be opened, or has no video.
    """

    num_frames = None
    is_live = True

    def __init__(self, address: str) -> None:
        self._address = address
        self.label = "stdin" if address == PIPE else address
        self.warnings: list[str] = []
        self._stopped = threading.Event()
        self._is_read = False
        self._errors = self._connections = self._resized = 0
        try:
            self._container = self._open()
            stream = video_stream(self._container)
            self.has_end = bool(stream.frames or stated_duration(self._container, stream) or self._container.duration)
            self._frames = self._decode(self._container)
            first = next(self._frames, None)
        except (av.error.FFmpegError, OSError) as error:
            raise InputError(f"{self.label}: {_reason(error)}") from error
        if first is None:
            raise InputError(f"{self.label}: no frame could be decoded")
        rate = float(stream.average_rate or stream.guessed_rate or 0)
        self.fps = rate if 0 < rate <= 1000 else None
        self._stored_size = first.width, first.height
        self._upright = Upright(self._stored_size)
        self.height, self.width = self._upright(first).shape[:2]
        self._first: Any = first
        self._clock = StreamClock(time.monotonic())

    def name(self, index: int) -> str:
        return f"{index:05d}"

    def frames(self, stride: int) -> Generator[np.ndarray, None, None]:
        self._is_read = True
        try:
            for index, frame in enumerate(self._arriving()):
                self.time = self._clock.step(frame.time, time.monotonic())
                self._resized += (frame.width, frame.height) != self._stored_size
                if index % stride == 0:
                    yield self._upright(frame)
        finally:
            self._is_read = False
            self._report()
            if self._stopped.is_set():
                self._container.close()

    def stop(self) -> None:
        """Ends `frames` at the next frame, or while it waits to connect again; may be called from another thread."""
        self._stopped.set()

    def close(self) -> None:
        self._stopped.set()
        if not self._is_read:  # otherwise the thread that reads closes it
            self._container.close()

    def _open(self) -> Any:
        # A pipe may be silent for as long as its writer likes.
        timeout = None if self._address == PIPE else (READ_TIMEOUT, READ_TIMEOUT)
        container = av.open(self._address, timeout=timeout, options=dict(OPTIONS))
        if video_stream(container) is None or container.format.name in NOT_VIDEO:
            container.close()
            raise InputError(f"{self.label}: not a video (no video stream in it)")
        return container

    def _decode(self, container: Any) -> Iterator[Any]:
        """The frames of a connection; ends where it is lost."""
        stream = video_stream(container)
        packets = iter(container.demux(stream))
        while not self._stopped.is_set():
            try:
                packet = next(packets, None)
            except (av.error.FFmpegError, OSError):
                return
            if packet is None:
                return
            try:
                yield from packet.decode()
            except av.error.FFmpegError:
                self._errors += 1

    def _arriving(self) -> Iterator[Any]:
        """The frames of all connections."""
        if self._first is not None:
            first, self._first = self._first, None
            yield first
        arrived = time.monotonic()
        while not self._stopped.is_set():
            for frame in self._frames:
                arrived = time.monotonic()
                yield frame
            if self._address == PIPE or not self._connect(arrived + PATIENCE):
                return

    def _connect(self, deadline: float) -> bool:
        """Opens the stream again; False after the deadline, and after `stop`."""
        self._container.close()
        delay, longest = DELAYS
        while not self._stopped.wait(min(delay, max(deadline - time.monotonic(), 0))):
            if time.monotonic() >= deadline:
                self.warnings.append(f"{self.label}: ended, no frame for {PATIENCE:g} s")
                return False
            try:
                self._container = self._open()
            except (av.error.FFmpegError, OSError, InputError):
                delay = min(2 * delay, longest)
                continue
            self._frames = self._decode(self._container)
            self._clock.restart()
            self._connections += 1
            return True
        return False

    def _report(self) -> None:
        width, height = self._stored_size
        counted = (
            (self._connections, "lost connections, opened again"),
            (self._errors, "packets that could not be decoded"),
            (self._resized, f"frames of another size, scaled to {width}x{height}"),
            (self._clock.jumps, "jumps of its clock, bridged by the local one"),
        )
        ended = [text for text in self.warnings if "ended, no frame" in text]
        self.warnings = [f"{self.label}: {text}: {count}" for count, text in counted if count] + ended


class RawDecoder(Decoder):
    """Frames of RGB pixels, 3 bytes each, row by row, on standard input: "raw:640x480@30" or "raw:640x480".

    Times are those of the rate; without one, of the arrival. A last frame that is not complete is left out.

    Args:
        text: size and rate.

    Raises:
        InputError: another text; not one complete frame.
    """

    num_frames = None
    is_live = True

    def __init__(self, text: str) -> None:
        match = RAW.fullmatch(text)
        if not match or not int(match[1]) or not int(match[2]) or (match[3] and not float(match[3])):
            raise InputError(f"{text}: not raw:WIDTHxHEIGHT or raw:WIDTHxHEIGHT@FPS, e.g. raw:640x480@30")
        self.width, self.height = int(match[1]), int(match[2])
        self.fps = float(match[3]) if match[3] else None
        self.warnings: list[str] = []
        self._input = sys.stdin.buffer
        self._size = self.width * self.height * 3
        self._first: bytes | None = self._input.read(self._size)
        if len(self._first) < self._size:
            raise InputError(
                f"stdin: no frame of {self.width}x{self.height} pixels ({len(self._first)} of {self._size} bytes)"
            )

    def name(self, index: int) -> str:
        return f"{index:05d}"

    def frames(self, stride: int) -> Generator[np.ndarray, None, None]:
        start = time.monotonic()
        for index, pixels in enumerate(self._arriving()):
            if index % stride == 0:
                self.time = index / self.fps if self.fps else time.monotonic() - start
                yield np.frombuffer(pixels, np.uint8).reshape(self.height, self.width, 3)

    def _arriving(self) -> Iterator[bytes]:
        pixels, self._first = self._first or b"", None
        while len(pixels) == self._size:
            yield pixels
            pixels = self._input.read(self._size)
        if pixels:
            self.warnings = [f"stdin: the last frame is not complete ({len(pixels)} of {self._size} bytes), left out"]


def open_pipe(text: str) -> Decoder:
    """The decoder of standard input: "-" for what FFmpeg reads, "raw:..." for pixels.

    Raises:
        InputError: see the decoders; standard input is a terminal.
    """
    if sys.stdin is None or sys.stdin.isatty():
        raise InputError("stdin: nothing is piped in, e.g. ffmpeg -i ... -f matroska - | entitysam segment -")
    return StreamDecoder(PIPE) if text == "-" else RawDecoder(text)


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return f"not a stream that can be read ({text})"
