"""Counts of a tracking metric, kept by name, that add up over videos and over classes."""

from collections.abc import Iterable

import numpy as np

Counts = dict[str, np.ndarray]


def total(parts: Iterable[Counts], zero: Counts) -> Counts:
    """The sum by name, in the order given."""
    result = {name: np.array(value, float) for name, value in zero.items()}
    for part in parts:
        for name, value in part.items():
            result[name] = result[name] + value
    return result
