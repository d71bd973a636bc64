"""When requests may start: rate limit, back-off with jitter, and the pauses that a server asks for."""

import random
from asyncio import sleep
from time import monotonic

MAX_HOLD = 600.0  # seconds; a server that asks for more is not waited for any longer


class RateLimiter:
    """Keeps its state from one video to the next.

    Args:
        requests_per_minute: 0 = no limit.
        backoff: seconds before the first repetition; doubled for each further one.
        max_backoff: longest wait of its own choice, in seconds.
    """

    def __init__(self, requests_per_minute: float = 0.0, backoff: float = 1.0, max_backoff: float = 60.0) -> None:
        self._gap = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._backoff = backoff
        self._max_backoff = max_backoff
        self._next = 0.0  # earliest start of the next request, on the monotonic clock

    async def acquire(self) -> None:
        """Returns when the next request may start."""
        while (wait := self._next - monotonic()) > 0:
            await sleep(wait)
        self._next = monotonic() + self._gap

    def hold(self, seconds: float) -> None:
        """No request starts for so long."""
        self._next = max(self._next, monotonic() + min(seconds, MAX_HOLD))

    async def back_off(self, attempt: int) -> None:
        """Waits before repetition `attempt` (from 0): exponentially longer, a random half of it taken away."""
        longest = min(self._backoff * 2**attempt, self._max_backoff)
        await sleep(longest * random.uniform(0.5, 1.0))
