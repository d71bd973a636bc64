"""When requests start, and what servers say about errors."""

import asyncio
import time

from support.chat_server import KEY

from entitysam.classification.vlm import rate_limiter as rate_limiter_module
from entitysam.classification.vlm.faults import refused_fields, retry_after, sentence_of
from entitysam.classification.vlm.rate_limiter import RateLimiter


class Clock:
    """A clock that advances only by sleeping."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(rate_limiter_module, "monotonic", lambda: self.now)
        monkeypatch.setattr(rate_limiter_module, "sleep", self.sleep)

    async def sleep(self, seconds):
        self.now += seconds


def test_requests_are_spaced_and_pauses_kept(monkeypatch):
    clock, rate_limiter = Clock(monkeypatch), RateLimiter(requests_per_minute=120, backoff=2, max_backoff=7)

    async def starts():
        found = []
        for number in range(5):
            await rate_limiter.acquire()
            found.append(clock.now - 100)
            if number == 2:
                rate_limiter.hold(30)
                rate_limiter.hold(10)
        return found

    assert asyncio.run(starts()) == [0, 0.5, 1, 31, 31.5]
    for attempt, longest in enumerate((2, 4, 7, 7)):
        before = clock.now
        asyncio.run(rate_limiter.back_off(attempt))
        assert longest / 2 <= clock.now - before <= longest
    rate_limiter.hold(1e9)  # cut to ten minutes
    before = clock.now
    asyncio.run(rate_limiter.acquire())
    assert clock.now - before == 600


def test_retry_after_headers():
    assert retry_after({"retry-after": "2.5"}) == 2.5
    assert retry_after({"retry-after-ms": "40", "retry-after": "9"}) == 0.04
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 60))
    assert 50 < retry_after({"retry-after": later}) <= 60
    assert retry_after({"retry-after": "soon"}) == 0
    assert retry_after({}) == 0


def test_sentences_of_errors():
    assert sentence_of({"error": {"message": "no\n\tway"}}) == "no way"
    assert sentence_of({"detail": [{"loc": ["body"], "msg": "bad field"}]}) == "bad field"
    assert sentence_of("<html>gateway</html>") == "<html>gateway</html>"
    assert sentence_of({"message": f"key {KEY}"}, KEY) == "key ***"
    assert sentence_of(None) == sentence_of({}) == sentence_of([]) == sentence_of({"message": {"a": 1}}) == ""
    assert len(sentence_of("x" * 10_000)) == 300
    assert refused_fields("unknown field top_k", None, ["top_k", "k"]) == {"top_k"}
    assert refused_fields("k and top_k", "k", ["top_k", "k"]) == {"k"}
