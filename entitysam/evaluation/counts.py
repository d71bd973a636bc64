"""Counts of a tracking metric by name, which add up over videos and classes."""

from collections.abc import Iterable

import numpy as np

Counts = dict[str, np.ndarray]


def total(parts: Iterable[Counts], zero: Counts) -> Counts:
    """The sum by name, in the given order."""
    result = {name: np.array(value, float) for name, value in zero.items()}
    for part in parts:
        for name, value in part.items():
            result[name] = result[name] + value
    return result
