"""A segmented video that is computed while its maps are read."""

from collections.abc import Iterable, Iterator

import numpy as np


class StreamedVideo:
    """The entity maps of a video, computed in one pass; `scores` is complete after it.

    Args:
        maps: per frame the ids int32 [H, W] and the score of each id on the frame.
    """

    def __init__(self, maps: Iterable[tuple[np.ndarray, dict[int, float]]]) -> None:
        self._maps = maps
        self._sum: dict[int, list[float]] = {}

    def iter_ids(self) -> Iterator[np.ndarray]:
        for ids, scores in self._maps:
            for number, score in scores.items():
                self._sum.setdefault(number, []).append(score)
            yield ids

    @property
    def scores(self) -> np.ndarray:
        """float64 [n] mean score over the frames on which id 1..n is visible."""
        scores = np.zeros(max(self._sum, default=0))
        for number, values in self._sum.items():
            scores[number - 1] = np.mean(values)
        return scores
