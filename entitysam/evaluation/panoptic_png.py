"""Decoding of panoptic PNGs, which takes most of the time of an evaluation."""

from pathlib import Path

import av
import cv2
import numpy as np

from entitysam.evaluation.evaluator import EvaluationError

_SIGNATURE, _END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_CHANNELS = {(8, 2): 3, (8, 6): 4}  # bit depth and colour type of the header; alpha is ignored
_STRICT = {"err_detect": "crccheck+explode"}
MAX_PIXELS = 1 << 27  # a map of 512 MiB; a header may claim 2^62 pixels

# glibc returns the memory of every decoded image to the system, and the page faults of the next one cost as much as its
# decoding. Freeing one block of this size raises glibc's threshold, so that images up to this size stay in the heap.
np.empty(24 << 20, np.uint8)


def read_panoptic_png(path: str | Path) -> np.ndarray:
    """Reads a map of segment ids.

    Args:
        path: 8-bit RGB PNG with id = R + 256 G + 65536 B.

    Returns:
        int32 [H, W] ids in 0..2^24-1.

    Raises:
        FileNotFoundError: no such file.
        EvaluationError: not a PNG, truncated, damaged, too large, or not 8-bit RGB; names the file.
    """
    data = Path(path).read_bytes()
    if not data.startswith(_SIGNATURE) or len(data) < 33:
        raise EvaluationError(f"{path}: not a PNG file")
    if not data.endswith(_END):
        raise EvaluationError(f"{path}: truncated PNG file")
    channels = _CHANNELS.get((data[24], data[25]))
    if channels is None:
        raise EvaluationError(f"{path}: bit depth {data[24]}, colour type {data[25]}; expected an 8-bit RGB PNG")
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if not 0 < width * height <= MAX_PIXELS:
        raise EvaluationError(f"{path}: {width}x{height} pixels, at most {MAX_PIXELS} are read")
    try:
        pixels = _decode(data, channels)
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise EvaluationError(f"{path}: damaged PNG file") from error
    # The bytes R, G, B, A of a pixel are one little-endian integer, so no arithmetic per channel is needed.
    rgba = cv2.cvtColor(pixels, cv2.COLOR_RGB2RGBA) if channels == 3 else np.ascontiguousarray(pixels)  # [H, W, 4]
    ids = rgba.view("<i4")[..., 0]  # [H, W]
    return np.bitwise_and(ids, 0xFFFFFF, out=ids)  # clear alpha


def _decode(data: bytes, channels: int) -> np.ndarray:
    """uint8 [H, W, channels] by FFmpeg, which is a quarter faster than OpenCV and detects damaged files."""
    context = av.CodecContext.create("png", "r")
    context.thread_count, context.options = 1, _STRICT
    frame = context.decode(av.Packet(data))[0]
    plane = frame.planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(frame.height, plane.line_size)  # rows are padded
    return rows[:, : frame.width * channels].reshape(frame.height, frame.width, channels)
