"""Requests, tokens and cost of labelling: counted for a finished run, estimated for a dry run."""

import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from typing import Any

from PIL import Image

ANSWER_TOKENS = 7  # of one entry such as `"12": 101, `
CHARACTERS_PER_TOKEN = 4.0  # of English text
LOW_DETAIL_TOKENS, TILE_TOKENS, TILE_SIZE = 85, 170, 512


@dataclass(frozen=True)
class Prices:
    """Prices in one currency: per million input and output tokens, and per request. Default: GPT-4o's list prices in USD."""

    input: float = 2.5
    output: float = 10.0
    request: float = 0.0

    def cost(self, requests: int, prompt_tokens: int, completion_tokens: int) -> float:
        tokens = self.input * prompt_tokens + self.output * completion_tokens
        return self.request * requests + tokens / 1e6


@dataclass
class Usage:
    """Running counts of a classifier.

    Attributes:
        images: images to classify.
        cached: images answered from the cache.
        requests: requests sent.
        replies: replies with text.
        faults: kind -> number of requests without a usable reply.
        alone: images asked again one by one after their batch failed.
        unknown: images without a valid answer.
        prompt_tokens, completion_tokens: as counted by the server.
    """

    images: int = 0
    cached: int = 0
    requests: int = 0
    replies: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    alone: int = 0
    unknown: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def report(self, prices: Prices) -> dict[str, Any]:
        """Plain data, with the cost."""
        numbers = {key: value for key, value in vars(self).items() if key != "faults"}
        cost = prices.cost(self.requests, self.prompt_tokens, self.completion_tokens)
        return {**numbers, "faults": dict(self.faults), "cost": round(cost, 4)}


@dataclass(frozen=True)
class Estimate:
    """Expected effort of a run: images, those of them in the cache, requests, tokens and cost."""

    images: int = 0
    cached: int = 0
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0

    @staticmethod
    def total(parts: Sequence["Estimate"]) -> "Estimate":
        """The sum of several estimates."""
        return Estimate(*(sum(values) for values in zip(*(astuple(part) for part in parts)))) if parts else Estimate()

    def __str__(self) -> str:
        return (
            f"{self.images} images, {self.cached} of them in the cache: {self.requests} requests, about "
            f"{self.prompt_tokens} input and {self.completion_tokens} output tokens, cost {self.cost:.2f} "
            "in the currency of the prices"
        )


def estimate_tokens(texts: Sequence[str], images: Sequence[bytes], detail: str) -> int:
    """Approximate input tokens of a request: text by its length, encoded images by GPT-4o's published rule."""
    text_tokens = sum(math.ceil(len(text) / CHARACTERS_PER_TOKEN) for text in texts)
    return text_tokens + sum(image_tokens(*_size(image), detail) for image in images)


def image_tokens(width: int, height: int, detail: str = "auto") -> int:
    """Tokens of an image for GPT-4o.

    Low detail costs 85. High detail: the image is fitted into 2048 x 2048, then its shorter side is reduced to at most
    768; each tile of 512 x 512 costs 170, plus 85. "auto" is counted as high.
    """
    if detail == "low":
        return LOW_DETAIL_TOKENS
    scale = min(1.0, 2048 / max(width, height))
    scale *= min(1.0, 768 / (min(width, height) * scale))
    tiles = math.ceil(round(width * scale) / TILE_SIZE) * math.ceil(round(height * scale) / TILE_SIZE)
    return LOW_DETAIL_TOKENS + TILE_TOKENS * tiles


def _size(content: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(content)) as image:
        return image.size
