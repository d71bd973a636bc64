"""Decoding in a background thread, a few frames ahead of the consumer."""

import threading
from collections import deque
from collections.abc import Generator
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetcher(Generic[T]):
    """Iterates over `items`, which a thread produces at most `depth` items ahead.

    An exception of the producer is raised here, after the items before it. `close` (also called at the end) stops the
    thread, which closes `items`.

    Args:
        items: a generator; only the thread advances it.
        depth: items kept ready, at least 1.
        patience: seconds that `close` waits; a thread that still waits for its next item then ends by itself.
        newest_only: when the consumer is slow, drop old items instead of making the producer wait.

    Attributes:
        dropped: number of items that were dropped.
    """

    def __init__(
        self,
        items: Generator[T, None, None],
        depth: int,
        newest_only: bool = False,
        patience: float | None = None,
    ) -> None:
        self._items = items
        self._patience = patience
        self._depth = depth
        self._newest_only = newest_only
        self._ready: deque[T] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._finished = False
        self._error: BaseException | None = None
        self.dropped = 0
        self._thread = threading.Thread(target=self._produce, name="prefetch", daemon=True)
        self._thread.start()

    def __iter__(self) -> "Prefetcher[T]":
        return self

    def __next__(self) -> T:
        with self._changed:
            while not self._ready and not self._finished:
                self._changed.wait()
            if self._ready:
                item = self._ready.popleft()
                self._changed.notify_all()
                return item
        self.close()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        raise StopIteration

    def end(self) -> None:
        """Makes the iteration end after the items that are ready; may be called in a signal handler."""
        with self._changed:
            self._stopped = self._finished = True
            self._changed.notify_all()

    def close(self) -> None:
        """Stops the thread and waits for it; items not yet taken are dropped. May be called twice."""
        with self._changed:
            self._stopped = True
            self._ready.clear()
            self._changed.notify_all()
        self._thread.join(self._patience)

    def _produce(self) -> None:
        try:
            for item in self._items:
                if not self._put(item):
                    break
        except BaseException as error:
            self._error = error
        finally:
            self._items.close()
            with self._changed:
                self._finished = True
                self._changed.notify_all()

    def _put(self, item: T) -> bool:
        """Queues one item; returns False after `close`."""
        with self._changed:
            while len(self._ready) >= self._depth and not self._stopped:
                if self._newest_only:
                    self._ready.popleft()
                    self.dropped += 1
                else:
                    self._changed.wait()
            if self._stopped:
                return False
            self._ready.append(item)
            self._changed.notify_all()
            return True
