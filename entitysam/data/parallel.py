"""Ordered map over items in worker processes, with progress."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

import cv2

Item = TypeVar("Item")
Result = TypeVar("Result")
Progress = Callable[[int], None]  # called with the number of items done so far


def parallel_map(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, progress: Progress = lambda done: None
) -> list[Result]:
    """Applies `function` to every item; results are in the order of the items, exceptions of workers are raised here.

    Args:
        function: importable by name, to be pickled.
        items: its arguments.
        workers: number of processes; 0 or 1 = this process.
        progress: called after every result.
    """
    if workers < 2:
        return _collect(map(function, items), progress)
    chunk = max(1, min(32, len(items) // (4 * workers)))
    with ProcessPoolExecutor(workers, initializer=one_thread) as pool:
        try:
            return _collect(pool.map(function, items, chunksize=chunk), progress)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def one_thread() -> None:
    """Limits OpenCV to one thread in a worker process, since the workers run in parallel."""
    cv2.setNumThreads(0)


def _collect(results: Iterable[Result], progress: Progress) -> list[Result]:
    collected = []
    for result in results:
        collected.append(result)
        progress(len(collected))
    return collected
