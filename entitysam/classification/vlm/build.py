"""Builds the classifier `vlm` from a config node."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from entitysam.classification.answer_cache import AnswerCache, default_folder
from entitysam.classification.labels import Label
from entitysam.classification.visual_prompts import VisualPrompt
from entitysam.classification.vlm.classifier import VisionLanguageClassifier
from entitysam.classification.vlm.client import ChatClient
from entitysam.classification.vlm.cost import Prices
from entitysam.classification.vlm.prompts import Prompts
from entitysam.classification.vlm.rate_limiter import RateLimiter
from entitysam.registry import CLASSIFIERS, ConfigError


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
    estimate_only: bool = False,
) -> VisionLanguageClassifier:
    """A `VisionLanguageClassifier` from a config node.

    Args:
        labels: the class list; None = free naming.
        visual_prompt: draws the crops; its kind selects a text of the prompt.
        model, base_url, key_env, timeout: see `ChatClient`.
        wording: see `Prompts`.
        batch_size, concurrency, attempts, detail: see `VisionLanguageClassifier`.
        requests_per_minute, backoff: see `RateLimiter`.
        json_mode: ask the server for JSON only by `response_format`; not every server supports it.
        parameters: optional fields of a request; default {temperature: 0}. With `logprobs: true`, where the server
            supports it, the confidence of an answer is the probability of its tokens; otherwise it is 1.
        prices: see `Prices`.
        cache: folder of the answers; empty = `answer_cache.default_folder`.
        estimate_only: only `estimate` is called, which needs no key.

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
    client = ChatClient(model, base_url, key_env, timeout, fields, key_needed=not estimate_only)
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
