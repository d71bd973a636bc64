"""Stops on Ctrl-C and SIGTERM between frames."""

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any


class StopRequest:
    """While active, the first Ctrl-C or SIGTERM only sets `requested`; a second one interrupts at once.

    At the end of the block, a SIGTERM that was not checked raises, so that the process ends with its exit code.

    Args:
        on_request: called at the first signal; makes what the block waits for end.

    Attributes:
        requested: number of the signal that arrived, 0 = none.
    """

    def __init__(self, on_request: Callable[[], None] = lambda: None) -> None:
        self.requested = 0
        self._on_request = on_request
        self._previous: dict[int, Any] = {}

    def check(self) -> None:
        """Is called between frames.

        Raises:
            KeyboardInterrupt: with the number of the signal that arrived.
        """
        if self.requested:
            raise KeyboardInterrupt(self.requested)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt(number)
        self.requested = number
        self._on_request()

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._request)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if kind is None and self.requested == signal.SIGTERM:
            raise KeyboardInterrupt(self.requested)
