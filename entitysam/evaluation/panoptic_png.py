"""Decoding of panoptic PNGs, the bulk of an evaluation's time."""

from pathlib import Path

import cv2
import numpy as np

from entitysam.evaluation.evaluator import EvaluationError

_SIGNATURE, _END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_RGB_8BIT = ((8, 2), (8, 6))  # bit depth and colour type of the header; alpha is ignored

# glibc hands the memory of every decoded picture back to the system, and faulting it in again costs as much as the
# decoding. Freeing one block of this size raises its threshold, so that pictures up to this size stay in the heap.
np.empty(24 << 20, np.uint8)


def read_panoptic_png(path: str | Path) -> np.ndarray:
    """Reads a map of segment ids.

    Args:
        path: 8-bit RGB PNG with id = R + 256 G + 65536 B.

    Returns:
        int32 [H, W] ids in 0..2^24-1.

    Raises:
        FileNotFoundError: no such file.
        EvaluationError: not a PNG, truncated, damaged, or not 8-bit RGB; names the file.
    """
    data = Path(path).read_bytes()
    if not data.startswith(_SIGNATURE) or len(data) < 33:
        raise EvaluationError(f"{path}: not a PNG file")
    if not data.endswith(_END):
        raise EvaluationError(f"{path}: truncated PNG file")
    if (data[24], data[25]) not in _RGB_8BIT:
        raise EvaluationError(f"{path}: bit depth {data[24]}, colour type {data[25]}; expected an 8-bit RGB PNG")
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise EvaluationError(f"{path}: damaged PNG file")
    # Four bytes R, G, B, 255 are one little-endian integer: no arithmetic per channel.
    rgba = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGBA)
    return (rgba.view("<i4")[..., 0] & 0xFFFFFF).astype(np.int32, copy=False)
