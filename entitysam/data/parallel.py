"""Runs a function over many items in worker processes, in order, reporting progress."""

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
    """Results of `function` on every item, in the order of the items; a worker's exception is raised here.

    Args:
        function: importable by name, so that it can travel to another process.
        items: its arguments.
        workers: processes; 0 or 1 runs everything in this one.
        progress: told after every result.
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
    """Keeps OpenCV in a worker process to one thread: the workers are the parallelism."""
    cv2.setNumThreads(0)


def _collect(results: Iterable[Result], progress: Progress) -> list[Result]:
    collected = []
    for result in results:
        collected.append(result)
        progress(len(collected))
    return collected
