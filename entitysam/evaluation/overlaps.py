"""Joint histograms of two id maps, the only pass over pixels that VEQ, VPQ, STQ and PQ need."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Overlaps:
    """Pixel counts of every pair of ids that overlaps on a frame of a video, as four aligned int64 arrays [n].

    Attributes:
        frame: index of the frame, ascending.
        truth_id, predicted_id: the two ids; 0 = void.
        pixels: number of pixels of the frame with both ids, > 0.
    """

    frame: np.ndarray
    truth_id: np.ndarray
    predicted_id: np.ndarray
    pixels: np.ndarray

    @classmethod
    def from_frames(cls, frames: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> "Overlaps":
        """Stacks the results of `frame_overlaps`."""
        if not frames:
            return cls(*(np.zeros(0, np.int64) for _ in range(4)))
        index = np.repeat(np.arange(len(frames)), [len(pixels) for _, _, pixels in frames])
        truth_id, predicted_id, pixels = (np.concatenate(column) for column in zip(*frames))
        return cls(index, truth_id, predicted_id, pixels)


def frame_overlaps(truth: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts the pairs of ids of one frame.

    Segments are coherent regions, so the maps are first split into runs of equal pairs in row order: sorting a few
    thousand runs is much faster than sorting a million pixels, and exact for any input.

    Args:
        truth, predicted: int [H, W] id maps with ids in 0..2^31-1.

    Returns:
        Truth ids, predicted ids and pixel counts, int64 [n] each, sorted by (truth id, predicted id).
    """
    truth, predicted = truth.ravel(), predicted.ravel()  # [H*W]
    changes = truth[1:] != truth[:-1]
    changes |= predicted[1:] != predicted[:-1]
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1]) if truth.size else np.zeros(0, np.int64)  # [runs]
    lengths = np.diff(starts, append=truth.size)
    # Both ids of a run in one integer, so that one sort groups the pairs.
    keys = (truth[starts].astype(np.int64) << 32) | predicted[starts].astype(np.int64)
    pairs, pair_of_run = np.unique(keys, return_inverse=True)
    pixels = np.bincount(pair_of_run, weights=lengths, minlength=len(pairs)).astype(np.int64)
    return pairs >> 32, pairs & 0xFFFFFFFF, pixels
