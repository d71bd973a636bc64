"""Zero-shot classification by a vision-language model behind an OpenAI-compatible server (supplement, section 1)."""

import asyncio
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from entitysam.classification.answer_cache import AnswerCache, default_folder
from entitysam.classification.classifier import UNKNOWN, Answer, ClassifierError, OnDone
from entitysam.classification.labels import Label
from entitysam.classification.visual_prompts import VisualPrompt
from entitysam.classification.vlm.client import ChatClient, ChatSession, Fault
from entitysam.classification.vlm.confidence import answer_confidence
from entitysam.classification.vlm.cost import ANSWER_TOKENS, Estimate, Prices, Usage, estimate_tokens
from entitysam.classification.vlm.prompts import MalformedReply, Prompts
from entitysam.classification.vlm.rate_limiter import RateLimiter
from entitysam.registry import CLASSIFIERS, ConfigError

logger = logging.getLogger(__name__)

Question = tuple[str, bytes]  # key of the answer, picture
MALFORMED = "malformed reply"


class VisionLanguageClassifier:
    """Asks in batches, repeats what failed, asks one by one what failed as a batch; what is left is unknown.

    A picture that got a valid answer is never asked again: answers are kept as soon as they are there, and the same
    picture is asked once. That a model gave no valid answer is kept too; that a server did not reply is not.

    Args:
        prompts: the words.
        client: the server.
        cache: the answers so far.
        rate_limiter: of the requests.
        batch_size: pictures per request.
        concurrency: requests at a time.
        attempts: for a batch, and then for each picture alone.
        detail: of the pictures, for servers that know it: "low", "high" or "auto".
        prices: for the reports.
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

    def classify(self, pictures: Sequence[bytes], on_done: OnDone = lambda count: None) -> list[Answer]:
        """An answer for each JPEG; see `Classifier`.

        Raises:
            ClassifierError: the server cannot be reached, or refuses key, model or account.
            OutputError: answers cannot be kept.
        """
        keys, answers, open_questions = self._look_up(pictures)
        on_done(len(keys) - len(open_questions))
        self.usage.pictures += len(keys)
        self.usage.cached += len(keys) - len(open_questions)
        if open_questions:
            asyncio.run(self._ask_all(list(open_questions.items()), answers, on_done))
        found = [answers[key] for key in keys]
        unknown = sum(answer.name is None for answer in found)
        self.usage.unknown += unknown
        if unknown:
            logger.warning("%d of %d pictures got no usable answer and stay unknown", unknown, len(found))
        return found

    def estimate(self, pictures: Sequence[bytes]) -> Estimate:
        """What `classify` would take; nothing is sent."""
        keys, _, open_questions = self._look_up(pictures)
        requests = tokens = 0
        for batch in self._batches(list(open_questions.items())):
            shown = [picture for _, picture in batch]
            words = [self.prompts.system(len(batch)), *(self.prompts.picture(n + 1) for n in range(len(batch)))]
            requests += 1
            tokens += estimate_tokens(words, shown, self.detail)
        answer_tokens = ANSWER_TOKENS * len(open_questions)
        cost = self.prices.cost(requests, tokens, answer_tokens)
        return Estimate(len(keys), len(keys) - len(open_questions), requests, tokens, answer_tokens, cost)

    def statistics(self) -> dict[str, Any]:
        return {"model": self.client.model, **self.usage.report(self.prices)}

    def _look_up(self, pictures: Sequence[bytes]) -> tuple[list[str], dict[str, Answer], dict[str, bytes]]:
        """Keys of the pictures, answers that are on disk, and the questions that are not, each once."""
        keys = [self.cache.key(picture) for picture in pictures]
        known = {key: self.cache.read(key) for key in dict.fromkeys(keys)}
        answers = {key: answer for key, answer in known.items() if answer is not None}
        return keys, answers, {key: picture for key, picture in zip(keys, pictures) if key not in answers}

    def _batches(self, questions: Sequence[Question]) -> Iterator[list[Question]]:
        for start in range(0, len(questions), self.batch_size):
            yield list(questions[start : start + self.batch_size])

    async def _ask_all(self, questions: Sequence[Question], answers: dict[str, Answer], on_done: OnDone) -> None:
        gate = asyncio.Semaphore(self.concurrency)

        async def one(batch: list[Question]) -> None:
            async with gate:
                answers.update(await self._ask_batch(session, batch))
            on_done(len(batch))

        async with self.client.session() as session:
            tasks = [asyncio.create_task(one(batch)) for batch in self._batches(questions)]
            try:
                await asyncio.gather(*tasks)
            finally:  # after an error the others end before the session does
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask_batch(self, session: ChatSession, batch: list[Question]) -> dict[str, Answer]:
        """An answer for every question of a batch, UNKNOWN where there is none to be had."""
        answers: dict[str, Answer] = {}
        fault = await self._attempt(session, batch, answers)
        left = [question for question in batch if question[0] not in answers]
        for question in left:
            if len(batch) > 1:
                self.usage.alone += 1
                fault = await self._attempt(session, [question], answers)
            if question[0] not in answers:
                answers[question[0]] = UNKNOWN
                if fault == MALFORMED:
                    self.cache.write(question[0], UNKNOWN)
        return answers

    async def _attempt(self, session: ChatSession, questions: list[Question], answers: dict[str, Answer]) -> str:
        """Asks the questions together until all are answered or the attempts are used up; the last fault or ""."""
        kind = ""
        for attempt in range(self.attempts):
            if attempt:
                await self.rate_limiter.back_off(attempt - 1)
            try:
                found = await self._request(session, [picture for _, picture in questions])
            except Fault as fault:
                kind = fault.kind
                self.usage.faults[kind] += 1
                self.rate_limiter.hold(fault.retry_after)
                if not fault.again:
                    break
                continue
            for position, answer in found.items():
                answers[questions[position][0]] = answer
                self.cache.write(questions[position][0], answer)
            questions = [question for question in questions if question[0] not in answers]
            if not questions:
                return ""
            kind = MALFORMED
            self.usage.faults["answer that is not of the list"] += len(questions)
        if kind == "connection" and not self.usage.replies:
            raise ClassifierError(f"{self.client.server} cannot be reached")
        return kind

    async def _request(self, session: ChatSession, pictures: list[bytes]) -> dict[int, Answer]:
        """The valid answers to a batch, by position.

        Raises:
            Fault: no reply, or one that cannot be read.
        """
        await self.rate_limiter.acquire()
        self.usage.requests += 1
        reply = await session.ask(self.prompts.messages(pictures, self.detail))
        self.usage.replies += 1
        self.usage.prompt_tokens += reply.prompt_tokens
        self.usage.completion_tokens += reply.completion_tokens
        try:
            found = self.prompts.read_reply(reply.text, len(pictures))
        except MalformedReply:
            raise Fault(MALFORMED) from None
        if not reply.tokens:
            return found
        sure = {position: answer_confidence(reply.text, reply.tokens, position + 1) for position in found}
        return {position: replace(answer, confidence=sure[position]) for position, answer in found.items()}


@CLASSIFIERS.register("vlm")
def vision_language_classifier(
    labels: tuple[Label, ...] | None,
    visual_prompt: VisualPrompt,
    model: str = "gpt-4o",
    base_url: str = "",
    key_env: str = "OPENAI_API_KEY",
    wording: str = "",
    batch_size: int = 8,
    concurrency: int = 8,
    requests_per_minute: float = 0.0,
    attempts: int = 4,
    timeout: float = 60.0,
    backoff: float = 1.0,
    detail: str = "auto",
    json_mode: bool = True,
    parameters: Mapping[str, Any] | None = None,
    prices: Mapping[str, float] | None = None,
    cache: str = "",
) -> VisionLanguageClassifier:
    """A `VisionLanguageClassifier` from a config node.

    Args:
        labels: the class list; None = free naming.
        visual_prompt: how the pictures are drawn.
        model, base_url, key_env, timeout: see `ChatClient`.
        wording: see `Prompts`.
        batch_size, concurrency, attempts, detail: see `VisionLanguageClassifier`.
        requests_per_minute, backoff: see `RateLimiter`.
        json_mode: ask the server to reply in JSON only; not every server can.
        parameters: further fields of a request; {temperature: 0} by default. With `logprobs: true`, where the server has
            them, an answer's confidence is the probability of its tokens; without, it is 1.
        prices: see `Prices`.
        cache: folder of the answers; empty = `answer_cache.default_folder`.

    Raises:
        ConfigError: a number out of its range, no key, or the package is missing.
    """
    for name, value in (("batch_size", batch_size), ("concurrency", concurrency), ("attempts", attempts)):
        if value < 1:
            raise ConfigError(f"classifier 'vlm': {name} must be 1 or more, not {value}")
    if timeout <= 0 or backoff < 0 or requests_per_minute < 0:
        raise ConfigError("classifier 'vlm': timeout must be positive, backoff and requests_per_minute not negative")
    fields: dict[str, Any] = {"temperature": 0} if parameters is None else dict(parameters)
    if json_mode:
        fields["response_format"] = {"type": "json_object"}
    prompts = Prompts(labels, visual_prompt.kind, wording)
    client = ChatClient(model, base_url, key_env, timeout, fields)
    question = json.dumps([model, prompts.fingerprint(), detail, fields], sort_keys=True)
    return VisionLanguageClassifier(
        prompts,
        client,
        AnswerCache(Path(cache) if cache else default_folder(), question),
        RateLimiter(requests_per_minute, backoff),
        batch_size=batch_size,
        concurrency=concurrency,
        attempts=attempts,
        detail=detail,
        prices=_prices(prices or {}),
    )


def _prices(values: Mapping[str, float]) -> Prices:
    try:
        return Prices(**{key: float(value) for key, value in values.items()})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"classifier 'vlm': prices takes input, output and request, not {dict(values)}") from error
