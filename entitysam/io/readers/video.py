"""Reads video files through PyAV, also those behind an address."""

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import av
import numpy as np

from entitysam.io.readers.base import Decoder, InputError, composite_on_black
from entitysam.io.readers.containers import is_intact

# FFmpeg reads any text as a terminal recording and draws its letters.
NOT_VIDEO = {"tty"}
# Announced durations are rough: a pass that ends at most this many frames early is complete.
DURATION_SLACK = 3


class VideoDecoder(Decoder):
    """Every stored frame of a video once, upright: variable frame rates are neither filled nor thinned.

    Rotation and mirroring of the display matrix are applied; frames with an alpha channel are composited on black;
    frames of another size than the first (streams that change resolution) are scaled to it. Pixels are taken as square.
    Where the container states neither a number of frames nor a duration, the packets of a local file are counted.

    Raises:
        InputError: not a video, or no frame of it can be decoded.
    """

    is_live = False

    def __init__(self, source: str | Path) -> None:
        self.source = str(source)
        is_local = "://" not in self.source
        self.files = [Path(source)] if is_local else []
        self.label = Path(source).name if is_local else self.source
        # An absolute path: FFmpeg takes "12:30.mp4" for an address with the protocol "12".
        self._address = os.path.abspath(self.source) if is_local else self.source
        self.warnings: list[str] = []
        with self.open() as container:
            stream = video_stream(container)
            self.fps = float(stream.average_rate or stream.guessed_rate or 0) or None
            self._announced = stream.frames
            self._duration = stated_duration(container, stream)
            self.num_frames = self._announced or round(self._duration * (self.fps or 0)) or None
            first = next(_decode(container, stream, _Counts()), None)
        if self.num_frames is None and self.files:
            self.num_frames = self._count_packets()
        if first is None:
            raise InputError(f"{self.label}: no frame could be decoded")
        self.stored_size = first.width, first.height
        self.upright = Upright(self.stored_size)
        self.height, self.width = self.upright(first).shape[:2]

    def name(self, index: int) -> str:
        return f"{index:05d}"

    def frames(self, stride: int) -> Generator[np.ndarray, None, None]:
        """See `Decoder.frames`. Skipped frames are decoded (others depend on them) but not converted to RGB."""
        self.warnings = []
        counts = _Counts()
        with self.open() as container:
            for index, frame in enumerate(_decode(container, video_stream(container), counts)):
                if index % stride == 0:
                    self.time = counts.time
                    yield self.upright(frame)
        self._report_losses(counts)

    def open(self) -> Any:
        """A container of the input, which the caller closes.

        Raises:
            InputError: not a video.
        """
        try:
            container = av.open(self._address)
        except (av.error.FFmpegError, OSError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(f"{self.label}: not a video that can be read ({reason})") from error
        if video_stream(container) is None or container.format.name in NOT_VIDEO:
            container.close()
            raise InputError(f"{self.label}: not a video (no video stream in it)")
        return container

    def _count_packets(self) -> int | None:
        with self.open() as container:
            try:
                return sum(packet.size > 0 for packet in container.demux(video_stream(container))) or None
            except av.error.FFmpegError:
                return None

    def _report_losses(self, counts: "_Counts") -> None:
        announced = self._announced
        lost = max(announced - counts.frames - counts.discarded, 0)
        if not announced and self.fps:
            announced = round(self._duration * self.fps)
            lost = announced - round(counts.last_start * self.fps) - 1
            lost = lost if lost > DURATION_SLACK else 0
        lost = max(lost, counts.errors)
        if lost:
            total = max(announced, counts.frames + lost)
            self.warnings.append(f"{self.label}: {lost} of {total} frames could not be decoded")
        elif self.files and not is_intact(self.files[0]):
            self.warnings.append(
                f"{self.label}: the file is damaged; frames besides the {counts.frames} may be missing"
            )


class _Counts:
    """What one pass found.

    Attributes:
        frames: decoded frames.
        errors: packets that could not be decoded.
        discarded: packets that the container marks as not to be shown.
        time: seconds from the first frame to the last one decoded; None where frames have no time stamps.
        last_start: seconds from the start of the stream to the latest frame.
    """

    def __init__(self) -> None:
        self.frames = 0
        self.errors = 0
        self.discarded = 0
        self.time: float | None = None
        self.last_start = 0.0


def _decode(container: Any, stream: Any, counts: _Counts) -> Generator[Any, None, None]:
    """Yields the frames that can be decoded; damaged packets are counted and skipped, a damaged container ends the pass."""
    start = float((stream.start_time or 0) * stream.time_base)
    first_time = 0.0
    stream.thread_type = "SLICE"  # threads over frames are faster, but lose good frames around a damaged one
    packets = iter(container.demux(stream))
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError:
            counts.errors += 1
            return
        if packet is None:
            return
        counts.discarded += packet.is_discard
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            counts.errors += 1
            continue
        for frame in frames:
            first_time = frame.time or 0.0 if not counts.frames else first_time
            counts.frames += 1
            counts.time = None if frame.time is None else max(frame.time - first_time, 0.0)
            counts.last_start = max(counts.last_start, (frame.time or 0.0) - start)
            yield frame


class Upright:
    """Decoded PyAV frames of one stream -> uint8 [H, W, 3] RGB, contiguous, with their rotation applied.

    PyAV's `frame.side_data` refers to the frame and the frame to it: such a frame stays in memory until the garbage
    collector looks for cycles, which is rare in a process with many objects. So the display matrix is read once for each
    rotation in degrees. (A stream that changes from upright to upside down and mirrored, which is no rotation, is read as
    it starts; no camera does that.)

    Args:
        stored_size: (width, height) that frames are scaled to before they are rotated.
    """

    def __init__(self, stored_size: tuple[int, int]) -> None:
        self._stored_size = stored_size
        self._matrix_of: dict[int, np.ndarray | None] = {}  # rotation in degrees -> display matrix

    def __call__(self, frame: Any) -> np.ndarray:
        """The pixels of an `av.VideoFrame` of any pixel format."""
        width, height = self._stored_size
        if any(component.is_alpha for component in frame.format.components):
            pixels = composite_on_black(frame.to_ndarray(format="rgba", width=width, height=height))
        else:
            pixels = frame.to_ndarray(format="rgb24", width=width, height=height)
        rotation = frame.rotation
        if rotation not in self._matrix_of:
            self._matrix_of[rotation] = _display_matrix(frame)
        matrix = self._matrix_of[rotation]
        return np.ascontiguousarray(pixels if matrix is None else apply_display_matrix(pixels, matrix))


def _display_matrix(frame: Any) -> np.ndarray | None:
    """int32 [3, 3] of a frame that has one."""
    for side_data in frame.side_data:
        if side_data.type.name == "DISPLAYMATRIX":
            return np.frombuffer(bytes(side_data), np.int32)[:9].reshape(3, 3)
    return None


def apply_display_matrix(pixels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Rotates and mirrors an image [H, W, ...] by the multiple of 90 degrees that is closest to a display matrix.

    Args:
        matrix: int [3, 3], as containers store it: x' = m[0,0] x + m[1,0] y, y' = m[0,1] x + m[1,1] y.
    """
    (a, b), (c, d) = matrix[:2, :2].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        # x' depends on y: rows become columns.
        pixels, flip_columns, flip_rows = pixels.swapaxes(0, 1), c < 0, b < 0  # [W, H, ...]
    else:
        flip_columns, flip_rows = a < 0, d < 0
    return pixels[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


def stated_duration(container: Any, stream: Any) -> float:
    """Duration of the video stream in seconds as the container states it, 0 where it does not."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    tag = stream.metadata.get("DURATION", "")  # Matroska: 00:00:04.000000000
    if tag.count(":") == 2:
        hours, minutes, seconds = tag.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    if container.duration and len(container.streams) == 1:
        return container.duration / av.time_base
    return 0.0


def video_stream(container: Any) -> Any:
    """The first video stream that is not the cover image of an audio file, or None."""
    videos = (s for s in container.streams.video if "attached_pic" not in str(s.disposition).lower())
    return next(videos, None)
