"""An mp4 that browsers play, frame by frame."""

import math
import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np

from entitysam.io.files import OutputError

H264_ENCODERS = ("libx264", "libopenh264", "h264_videotoolbox")
FALLBACK_ENCODER = "mpeg4"
MAX_SIDE = 3840  # larger H.264 pictures are beyond many decoders; they are scaled down
DEFAULT_FPS = 10.0
BT709 = 1  # code of the colour space in H.264 and in FFmpeg


class VideoWriter:
    """Writes RGB frames as H.264 yuv420p with the index in front ("fast start").

    The file appears under its name when `close` is called (or the `with` block ends without an error); after an error
    nothing is left. Odd sizes are padded by repeating the last row or column; sizes beyond `MAX_SIDE` are scaled down.

    Args:
        path: of the mp4.
        width, height: of the frames in pixels.
        fps: frames per second; None = `DEFAULT_FPS`.

    Raises:
        OutputError: the file cannot be written.
    """

    def __init__(self, path: Path, width: int, height: int, fps: float | None = None) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}.part")
        self._frame_size = width, height
        scale = min(1.0, MAX_SIDE / max(width, height))
        self._width, self._height = (2 * math.ceil(side * scale / 2) for side in (width, height))
        encoder = find_encoder()
        self.warning = ""
        if encoder == FALLBACK_ENCODER:
            self.warning = (
                f"no H.264 encoder in this build of FFmpeg: {path.name} is MPEG-4, which browsers may not play"
            )
        try:
            self._temporary.touch()  # FFmpeg opens files late, at the first frame
            self._container = av.open(self._temporary, "w", format="mp4", options={"movflags": "faststart"})
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error
        self._stream = self._add_stream(encoder, Fraction(fps or DEFAULT_FPS).limit_denominator(1001))

    def _add_stream(self, encoder: str, rate: Fraction) -> Any:
        stream: Any = self._container.add_stream(encoder, rate=rate)
        stream.width, stream.height = self._width, self._height
        stream.pix_fmt = "yuv420p"
        if encoder == "libx264":
            stream.options = {"crf": "20", "preset": "veryfast"}
        else:
            stream.codec_context.bit_rate = max(500_000, int(0.15 * self._width * self._height * rate))
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = BT709
        return stream

    def add(self, frame: np.ndarray) -> None:
        """Appends one frame, uint8 [height, width, 3] RGB.

        Raises:
            ValueError: the frame has another size.
            OutputError: e.g. the disk is full.
        """
        width, height = self._frame_size
        if frame.shape != (height, width, 3):
            raise ValueError(f"{self._path.name}: frame of shape {frame.shape} in a video of {width}x{height}")
        padded = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), format="rgb24")
        picture = picture.reformat(self._width, self._height, format="yuv420p", dst_colorspace="ITU709")
        self._mux(picture)

    def _mux(self, picture: Any) -> None:
        try:
            self._container.mux(self._stream.encode(picture))
        except (OSError, av.error.FFmpegError) as error:
            raise OutputError(f"{self._path}: cannot be written ({error.strerror or error})") from error

    def close(self) -> None:
        """Finishes the video and gives it its name."""
        self._mux(None)
        self._container.close()
        os.replace(self._temporary, self._path)

    def discard(self) -> None:
        """Removes what was written; may be called after `close`, which it does not undo."""
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
    """The best mp4 video encoder that this build of FFmpeg has."""
    for name in H264_ENCODERS:
        try:
            av.Codec(name, "w")
        except ValueError:  # av.codec.codec.UnknownCodecError
            continue
        return name
    return FALLBACK_ENCODER
