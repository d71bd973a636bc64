"""Zero-shot classification by a vision-language model behind an OpenAI-compatible server (supplement, section 1)."""

import asyncio
import logging
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from entitysam.classification.answer_cache import AnswerCache
from entitysam.classification.classifier import UNKNOWN, Answer, ClassifierError, OnDone
from entitysam.classification.vlm.client import ChatClient, ChatSession
from entitysam.classification.vlm.confidence import answer_confidence
from entitysam.classification.vlm.cost import ANSWER_TOKENS, Estimate, Prices, Usage, estimate_tokens
from entitysam.classification.vlm.faults import Fault
from entitysam.classification.vlm.prompts import Prompts
from entitysam.classification.vlm.rate_limiter import RateLimiter
from entitysam.classification.vlm.reply import MalformedReply, ReplyParser

logger = logging.getLogger(__name__)

Question = tuple[str, bytes]  # cache key of the answer, encoded image


class VisionLanguageClassifier:
    """Asks in batches, retries failed requests, then asks the images of a failed batch one by one.

    Valid answers are cached as soon as they arrive, so that no image with a valid answer is asked again. An image without
    a valid answer is unknown; unknown is never cached, so the next run asks again.

    Args:
        prompts: builds the messages.
        client: the server.
        cache: answers on disk.
        rate_limiter: spaces the requests.
        batch_size: images per request.
        concurrency: simultaneous requests.
        attempts: for a batch, and then for each of its images alone.
        detail: resolution of the images at the server: "low", "high" or "auto".
        prices: for estimates and statistics.
    """

    def __init__(
        self,
        prompts: Prompts,
        client: ChatClient,
        cache: AnswerCache,
        rate_limiter: RateLimiter,
        *,
        batch_size: int = 8,
        concurrency: int = 8,
        attempts: int = 4,
        detail: str = "auto",
        prices: Prices,
    ) -> None:
        self.prompts = prompts
        self.client = client
        self.cache = cache
        self.rate_limiter = rate_limiter
        self.batch_size = batch_size
        self.concurrency = concurrency
        self.attempts = attempts
        self.detail = detail
        self.prices = prices
        self.usage = Usage()
        self._parser = ReplyParser(prompts.labels)
        self._reported: set[tuple[str, frozenset[str]]] = set()  # faults that the user has been told

    def classify(self, images: Sequence[bytes], on_done: OnDone = lambda count: None) -> list[Answer]:
        """An answer for each JPEG; see `Classifier`. May be called inside a running event loop, which it blocks.

        Raises:
            ClassifierError: the server cannot be reached, or refuses key, model or account.
            OutputError: answers cannot be cached.
        """
        keys, answers, open_questions = self._look_up(images)
        num_cached = len(keys) - len(open_questions)
        on_done(num_cached)
        self.usage.images += len(keys)
        self.usage.cached += num_cached
        if open_questions:
            _run(self._ask_all(list(open_questions.items()), answers, on_done))
        found = [answers[key] for key in keys]
        unknown = sum(answer.name is None for answer in found)
        self.usage.unknown += unknown
        if unknown:
            logger.warning("%d of %d images got no valid answer and stay unknown", unknown, len(found))
        return found

    def estimate(self, images: Sequence[bytes]) -> Estimate:
        """The expected effort of `classify`; nothing is sent."""
        keys, _, open_questions = self._look_up(images)
        requests = tokens = 0
        for batch in self._batches(list(open_questions.items())):
            texts = [self.prompts.system(len(batch)), *(self.prompts.image(n + 1) for n in range(len(batch)))]
            requests += 1
            tokens += estimate_tokens(texts, [image for _, image in batch], self.detail)
        answer_tokens = ANSWER_TOKENS * len(open_questions)
        cost = self.prices.cost(requests, tokens, answer_tokens)
        return Estimate(len(keys), len(keys) - len(open_questions), requests, tokens, answer_tokens, cost)

    def statistics(self) -> dict[str, Any]:
        return {"model": self.client.model, **self.usage.report(self.prices)}

    def _look_up(self, images: Sequence[bytes]) -> tuple[list[str], dict[str, Answer], dict[str, bytes]]:
        """Cache keys of the images, cached answers, and the images without one, each once."""
        keys = [self.cache.key(image) for image in images]
        known = {key: self.cache.read(key) for key in dict.fromkeys(keys)}
        answers = {key: answer for key, answer in known.items() if answer is not None}
        return keys, answers, {key: image for key, image in zip(keys, images) if key not in answers}

    def _batches(self, questions: Sequence[Question]) -> Iterator[list[Question]]:
        for start in range(0, len(questions), self.batch_size):
            yield list(questions[start : start + self.batch_size])

    async def _ask_all(self, questions: Sequence[Question], answers: dict[str, Answer], on_done: OnDone) -> None:
        semaphore = asyncio.Semaphore(self.concurrency)

        async def ask(batch: list[Question]) -> None:
            async with semaphore:
                answers.update(await self._ask_batch(session, batch))
            on_done(len(batch))

        async with self.client.session() as session:
            tasks = [asyncio.create_task(ask(batch)) for batch in self._batches(questions)]
            try:
                await asyncio.gather(*tasks)
            finally:  # after an error, end the other tasks before the session closes
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask_batch(self, session: ChatSession, batch: list[Question]) -> dict[str, Answer]:
        """An answer for every question of a batch; UNKNOWN for those without a valid one."""
        answers: dict[str, Answer] = {}
        await self._attempt(session, batch, answers)
        for question in batch:
            if question[0] not in answers and len(batch) > 1:
                self.usage.alone += 1
                await self._attempt(session, [question], answers)
        return {key: answers.get(key, UNKNOWN) for key, _ in batch}

    async def _attempt(self, session: ChatSession, questions: list[Question], answers: dict[str, Answer]) -> None:
        """Asks the questions together until all have a valid answer or no attempt is left."""
        attempt, fault = 0, None
        while questions and attempt < self.attempts:
            if attempt:
                await self.rate_limiter.back_off(attempt - 1)
            try:
                found = await self._request(session, [image for _, image in questions])
            except Fault as error:
                fault = error
                self._handle(fault)
                # Removing a refused field shortens the list of fields, so this repetition ends; it is no attempt.
                attempt += not fault.refused
                if not fault.again and not fault.refused:
                    break
                continue
            for position, answer in found.items():
                answers[questions[position][0]] = answer
                self.cache.write(questions[position][0], answer)
            questions = [question for question in questions if question[0] not in answers]
            if questions:
                self.usage.faults["answer not in the class list"] += len(questions)
            attempt += 1
        if questions and fault is not None and fault.kind == "connection" and not self.usage.replies:
            raise ClassifierError(f"{self.client.server} cannot be reached")

    def _handle(self, fault: Fault) -> None:
        """Counts a fault, applies what the server asks for, and tells the user the server's sentence once."""
        self.usage.faults[fault.kind] += 1
        self.rate_limiter.hold(fault.retry_after)
        self.client.remove_fields(fault.refused)
        if fault.sentence and (fault.kind, fault.refused) not in self._reported:
            self._reported.add((fault.kind, fault.refused))
            logger.warning("%s", fault.describe(self.client.server))

    async def _request(self, session: ChatSession, images: list[bytes]) -> dict[int, Answer]:
        """The valid answers to a batch, by position.

        Raises:
            Fault: no reply, or a reply that cannot be parsed.
        """
        await self.rate_limiter.acquire()
        self.usage.requests += 1
        reply = await session.ask(self.prompts.messages(images, self.detail))
        self.usage.replies += 1
        self.usage.prompt_tokens += reply.prompt_tokens
        self.usage.completion_tokens += reply.completion_tokens
        try:
            parsed = self._parser.parse(reply.text, len(images))
        except MalformedReply:
            raise Fault("malformed reply") from None
        if not reply.tokens:
            return parsed.answers
        return {
            position: replace(
                answer, confidence=answer_confidence(reply.text, reply.tokens, position + 1, parsed.start)
            )
            for position, answer in parsed.answers.items()
        }


def _run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Runs a coroutine to its end; in a thread of its own where this thread already runs an event loop (notebooks)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(coroutine)
        return
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, coroutine).result()
