"""The value range of images of more than 8 bits."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

COMMON_BITS = (8, 10, 12)  # of cameras and microscopes, stored in 16-bit files without being scaled up


@dataclass(frozen=True)
class Levels:
    """Values from 0 to `white` become 0 to 255.

    Attributes:
        white: the largest value.
        guess: a line for the user where the file does not state the range; "" where it does.
    """

    white: float
    guess: str = ""

    def scale(self, values: np.ndarray) -> np.ndarray:
        """uint8 of the same shape, rounded; values outside of the range are clipped, not-a-number becomes 0."""
        scaled = np.nan_to_num(values.astype(np.float64), nan=0.0) * (255 / self.white)
        return np.rint(scaled.clip(0, 255)).astype(np.uint8)


EIGHT_BITS = Levels(255.0)


def find_levels(images: Iterable[tuple[np.ndarray, int | None]]) -> Levels:
    """The range of images that are shown one after another: the same for all, so that brightness does not jump.

    Args:
        images: values of some of them, and the number of significant bits that the file states, where it does.

    Returns:
        the stated range, where the values are within it; the full range of the type, where values use more than 12 bits
        of it; otherwise a guess from the largest value. Floating point values up to 1 are taken as 0..1.
    """
    largest, bits, is_float = 0.0, 0, False
    for values, stated in images:
        is_float |= values.dtype.kind == "f"
        finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
        largest = max(largest, float(finite.max(initial=0)))
        bits = max(bits, stated or 0)
    if is_float:
        if largest <= 1:
            return Levels(1.0, "floating point images do not state their range; taken as 0..1")
        return _guess(largest, (8, 16))
    if bits and largest < 2**bits:
        return Levels(2.0**bits - 1)
    if 2**12 <= largest < 2**16 or not largest:
        return Levels(2.0**16 - 1)
    return _guess(largest, COMMON_BITS)


def _guess(largest: float, depths: tuple[int, ...]) -> Levels:
    white = next((2.0**depth - 1 for depth in depths if largest <= 2**depth - 1), largest)
    return Levels(
        white, f"the largest value is {largest:g} and the files do not state their range; taken as 0..{white:g}"
    )
