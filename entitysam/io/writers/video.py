"""Writes an mp4 that browsers play, frame by frame."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np

from entitysam.io.files import create_file, output_errors

H264_ENCODERS = ("libx264", "libopenh264", "h264_videotoolbox")
FALLBACK_ENCODER = "mpeg4"
MAX_SIDE = 3840  # many decoders refuse larger H.264 frames; they are scaled down
DEFAULT_FPS = 10.0
TIME_BASE = 60_000  # ticks per second of frames with times: exact for 24, 25, 30, 50, 60 and 29.97 frames/s
BT709 = 1  # code of the colour space in H.264 and in FFmpeg


class VideoWriter:
    """Writes RGB frames as H.264 yuv420p with the index in front ("fast start").

    The file appears under its name when `close` is called (or the `with` block ends without an error); after an error
    nothing is left. Odd sizes are padded by repeating the last row or column; sizes beyond `MAX_SIDE` are scaled down.

    Args:
        path: of the mp4.
        width, height: of the frames in pixels.
        fps: frames per second of frames without times; None = `DEFAULT_FPS`.

    Raises:
        OutputError: the file cannot be written.
    """

    def __init__(self, path: Path, width: int, height: int, fps: float | None = None) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}.part")
        self._frame_size = width, height
        scale = min(1.0, MAX_SIDE / max(width, height))
        self._width, self._height = (2 * math.ceil(side * scale / 2) for side in (width, height))
        self._rate = Fraction(fps or DEFAULT_FPS).limit_denominator(1001)
        self._encoder = find_encoder()
        self.warning = ""
        if self._encoder == FALLBACK_ENCODER:
            self.warning = (
                f"no H.264 encoder in this build of FFmpeg: {path.name} is MPEG-4, which browsers may not play"
            )
        self._stream: Any = None
        self._start: float | None = None
        self._ticks = -1  # time stamp of the last frame, in units of the time base
        with output_errors(path):
            create_file(self._temporary)  # FFmpeg opens files late, at the first frame
            # An absolute path: FFmpeg takes "run:1/overlay.mp4" for an address with the protocol "run".
            name = os.path.abspath(self._temporary)
            self._container = av.open(name, "w", format="mp4", options={"movflags": "faststart"})

    def _add_stream(self, time_base: Fraction) -> Any:
        stream: Any = self._container.add_stream(self._encoder, rate=self._rate)
        stream.width, stream.height = self._width, self._height
        stream.pix_fmt = "yuv420p"
        if self._encoder == "libx264":
            # Without B-frames the decoding order is the order of the frames: else mp4 gets a wrong duration where the
            # distances between frames vary.
            stream.options = {"crf": "20", "preset": "veryfast", "bf": "0"}
        else:
            stream.codec_context.bit_rate = max(500_000, int(0.15 * self._width * self._height * self._rate))
        context = stream.codec_context
        context.time_base = stream.time_base = time_base
        context.colorspace = context.color_primaries = context.color_trc = BT709
        return stream

    def add(self, frame: np.ndarray, time: float | None = None) -> None:
        """Appends one frame.

        Args:
            frame: uint8 [height, width, 3] RGB.
            time: seconds, ascending, of which the first frame's is the start; None places the frame 1 / fps after the one before. Either
                all frames have times or none has.

        Raises:
            ValueError: the frame has another size.
            OutputError: e.g. the disk is full.
        """
        width, height = self._frame_size
        if frame.shape != (height, width, 3):
            raise ValueError(f"{self._path.name}: frame of shape {frame.shape} in a video of {width}x{height}")
        if self._stream is None:
            self._stream = self._add_stream(1 / self._rate if time is None else Fraction(1, TIME_BASE))
        padded = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        encoded = av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), format="rgb24")
        encoded = encoded.reformat(self._width, self._height, format="yuv420p", dst_colorspace="ITU709")
        time_base = self._stream.codec_context.time_base
        self._start = (time or 0.0) if self._start is None else self._start
        self._ticks = max(self._ticks + 1, 0 if time is None else round((time - self._start) / time_base))
        encoded.pts, encoded.time_base = self._ticks, time_base
        self._mux(encoded)

    def _mux(self, frame: Any) -> None:
        with self._errors():
            self._container.mux(self._stream.encode(frame))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        with output_errors(self._path):
            try:
                yield
            except av.error.FFmpegError as error:
                raise OSError(error.errno, error.strerror) from error

    def close(self) -> None:
        """Finishes the video and renames it to its path."""
        if self._stream is not None:
            self._mux(None)
        with self._errors():
            self._container.close()
            os.replace(self._temporary, self._path)

    def discard(self) -> None:
        """Removes an unfinished video; after `close` it does nothing."""
        with suppress(OSError, av.error.FFmpegError):  # on a full disk the end cannot be written
            self._container.close()
        self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            self.discard()


def find_encoder() -> str:
    """Name of the first of `H264_ENCODERS` in this build of FFmpeg, else `FALLBACK_ENCODER`."""
    for name in H264_ENCODERS:
        try:
            av.Codec(name, "w")
        except ValueError:  # av.codec.codec.UnknownCodecError
            continue
        return name
    return FALLBACK_ENCODER
