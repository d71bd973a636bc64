"""Spaces requests: rate limit, exponential back-off with jitter, and the pauses that a server asks for."""

import random
from asyncio import sleep
from time import monotonic

MAX_HOLD = 600.0  # seconds; a longer `Retry-After` is cut to this


class RateLimiter:
    """Limits the rate of requests. Its state is kept from one video to the next.

    Args:
        requests_per_minute: 0 = no limit.
        backoff: seconds before the first retry; doubled for each further one.
        max_backoff: upper bound of the back-off in seconds.
    """

    def __init__(self, requests_per_minute: float = 0.0, backoff: float = 1.0, max_backoff: float = 60.0) -> None:
        self._interval = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._backoff = backoff
        self._max_backoff = max_backoff
        self._next = 0.0  # earliest start of the next request, on the monotonic clock

    async def acquire(self) -> None:
        """Waits until the next request may start."""
        # Another task may move `_next` during the sleep, so it is checked again.
        while (wait := self._next - monotonic()) > 0:
            await sleep(wait)
        self._next = monotonic() + self._interval

    def hold(self, seconds: float) -> None:
        """Starts no request for `seconds`, at most `MAX_HOLD`."""
        self._next = max(self._next, monotonic() + min(seconds, MAX_HOLD))

    async def back_off(self, attempt: int) -> None:
        """Waits before retry `attempt` (from 0): a uniform share between 1/2 and 1 of backoff * 2^attempt."""
        longest = min(self._backoff * 2**attempt, self._max_backoff)
        await sleep(longest * random.uniform(0.5, 1.0))
