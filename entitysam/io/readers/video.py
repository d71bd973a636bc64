"""Video files and network streams, through PyAV."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import av
import numpy as np

from entitysam.io.readers.base import Decoder, InputError, composite_on_black

LIVE_PROTOCOLS = ("rtsp", "rtsps", "rtp", "rtmp", "udp", "srt", "tcp")
# FFmpeg takes any text for a terminal recording and draws its letters.
NOT_VIDEO = {"tty"}
# A pass that ends more than this many frames before the announced duration lost them; below, headers are just rough.
DURATION_SLACK = 3


class VideoDecoder(Decoder):
    """Every frame of a video once, upright, as it is stored: variable frame rates are neither filled nor thinned.

    Rotation and mirroring of the display matrix are applied; frames with an alpha channel are composited on black;
    frames of another size than the first (streams that change resolution) are scaled to it. Pixels are taken as square.

    Raises:
        InputError: not a video, or no frame of it can be decoded.
    """

    def __init__(self, source: str | Path) -> None:
        self.source = str(source)
        self.label = self.source if "://" in self.source else Path(source).name
        self.is_live = self.source.split("://")[0].lower() in LIVE_PROTOCOLS
        self.warnings: list[str] = []
        with self._open() as container:
            stream = _video_stream(container)
            self.fps = float(stream.average_rate or stream.guessed_rate or 0) or None
            self._announced = stream.frames
            self._duration = _duration(container, stream)
            self.num_frames = self._announced or round(self._duration * (self.fps or 0)) or None
            first = next(_decode(container, stream, _Tally()), None)
        if first is None:
            raise InputError(f"{self.label}: no frame could be decoded")
        self._stored_size = first.width, first.height
        self.height, self.width = upright(first, self._stored_size).shape[:2]

    def name(self, index: int) -> str:
        return f"{index:05d}"

    def frames(self, stride: int) -> Generator[np.ndarray, None, None]:
        """See `Decoder.frames`. Frames between are decoded (others depend on them) but not converted to RGB."""
        self.warnings = []
        tally = _Tally()
        with self._open() as container:
            for index, frame in enumerate(_decode(container, _video_stream(container), tally)):
                if index % stride == 0:
                    yield upright(frame, self._stored_size)
        self._report_losses(tally)

    def _open(self) -> Any:
        try:
            container = av.open(self.source)
        except (av.error.FFmpegError, OSError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(f"{self.label}: not a video that can be read ({reason})") from error
        if _video_stream(container) is None or container.format.name in NOT_VIDEO:
            container.close()
            raise InputError(f"{self.label}: not a video (no video stream in it)")
        return container

    def _report_losses(self, tally: "_Tally") -> None:
        announced = self._announced
        lost = max(announced - tally.frames - tally.discarded, 0)
        if not announced and self.fps and not self.is_live:
            announced = round(self._duration * self.fps)
            lost = announced - round(tally.last_start * self.fps) - 1
            lost = lost if lost > DURATION_SLACK else 0
        lost = max(lost, tally.errors)
        if lost:
            total = max(announced, tally.frames + lost)
            self.warnings.append(f"{self.label}: {lost} of {total} frames could not be decoded")


class _Tally:
    """What one pass met: frames decoded, packets that failed, packets the container says to drop, last frame's seconds."""

    def __init__(self) -> None:
        self.frames = 0
        self.errors = 0
        self.discarded = 0
        self.last_start = 0.0


def _decode(container: Any, stream: Any, tally: _Tally) -> Generator[Any, None, None]:
    """The video frames that decode; broken packets are counted and passed over, a broken container ends the pass."""
    start = float((stream.start_time or 0) * stream.time_base)
    stream.thread_type = "SLICE"  # threads over frames are faster, but lose good frames around a broken one
    packets = iter(container.demux(stream))
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError:
            tally.errors += 1
            return
        if packet is None:
            return
        tally.discarded += packet.is_discard
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            tally.errors += 1
            continue
        for frame in frames:
            tally.frames += 1
            tally.last_start = max(tally.last_start, (frame.time or 0.0) - start)
            yield frame


def upright(frame: Any, stored_size: tuple[int, int]) -> np.ndarray:
    """A decoded PyAV frame as it is meant to be seen: uint8 [H, W, 3] RGB, contiguous.

    Args:
        frame: `av.VideoFrame` of any pixel format.
        stored_size: (width, height) to scale to before rotating.
    """
    width, height = stored_size
    if any(component.is_alpha for component in frame.format.components):
        pixels = composite_on_black(frame.to_ndarray(format="rgba", width=width, height=height))
    else:
        pixels = frame.to_ndarray(format="rgb24", width=width, height=height)
    for side_data in frame.side_data:
        if side_data.type.name == "DISPLAYMATRIX":
            pixels = apply_display_matrix(pixels, np.frombuffer(bytes(side_data), np.int32)[:9].reshape(3, 3))
    return np.ascontiguousarray(pixels)


def apply_display_matrix(pixels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Turns and mirrors an image [H, W, ...] by the nearest multiple of 90 degrees of a display matrix.

    Args:
        matrix: int [3, 3], as containers store it: x' = m[0,0] x + m[1,0] y, y' = m[0,1] x + m[1,1] y.
    """
    (a, b), (c, d) = matrix[:2, :2].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        pixels, flip_columns, flip_rows = pixels.swapaxes(0, 1), c < 0, b < 0
    else:
        flip_columns, flip_rows = a < 0, d < 0
    return pixels[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


def _duration(container: Any, stream: Any) -> float:
    """Announced length of the video stream in seconds, 0 where the container gives none."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    tag = stream.metadata.get("DURATION", "")  # Matroska: 00:00:04.000000000
    if tag.count(":") == 2:
        hours, minutes, seconds = tag.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    if container.duration and len(container.streams) == 1:
        return container.duration / av.time_base
    return 0.0


def _video_stream(container: Any) -> Any:
    """The first video stream that is not the cover picture of a piece of music, or None."""
    videos = (s for s in container.streams.video if "attached_pic" not in str(s.disposition).lower())
    return next(videos, None)
