"""What naming took, and what it would take: requests, tokens, money."""

import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from typing import Any

from PIL import Image

ANSWER_TOKENS = 7  # of one `"12": 101, `
CHARACTERS_PER_TOKEN = 4.0  # of English
LOW_DETAIL, TILE_TOKENS, TILE = 85, 170, 512


@dataclass(frozen=True)
class Prices:
    """In one currency: per million tokens in and out, and per request. The defaults are GPT-4o's list prices in USD."""

    input: float = 2.5
    output: float = 10.0
    request: float = 0.0

    def cost(self, requests: int, prompt_tokens: int, completion_tokens: int) -> float:
        tokens = self.input * prompt_tokens + self.output * completion_tokens
        return self.request * requests + tokens / 1e6


@dataclass
class Usage:
    """Counted as it happens.

    Attributes:
        pictures: questions.
        cached: answered from the disk.
        requests: sent.
        replies: that came back with text.
        faults: kind -> how many, of requests without a usable reply.
        alone: pictures asked one by one after their batch had failed.
        unknown: pictures without a usable answer in the end.
        prompt_tokens, completion_tokens: as the server counts them.
    """

    pictures: int = 0
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
    """What a run would take: pictures, those answered on disk, requests, tokens, money."""

    pictures: int = 0
    cached: int = 0
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0

    @staticmethod
    def total(parts: Sequence["Estimate"]) -> "Estimate":
        """The sum."""
        return Estimate(*(sum(values) for values in zip(*(astuple(part) for part in parts)))) if parts else Estimate()

    def __str__(self) -> str:
        return (
            f"{self.pictures} pictures, {self.cached} of them answered on disk: {self.requests} requests, about "
            f"{self.prompt_tokens} tokens in and {self.completion_tokens} out, {self.cost:.2f} in the currency of the prices"
        )


def estimate_tokens(texts: Sequence[str], pictures: Sequence[bytes], detail: str) -> int:
    """Tokens of a request, roughly: text by its length, pictures by GPT-4o's published rule."""
    words = sum(math.ceil(len(text) / CHARACTERS_PER_TOKEN) for text in texts)
    return words + sum(picture_tokens(*_size(picture), detail) for picture in pictures)


def picture_tokens(width: int, height: int, detail: str = "auto") -> int:
    """Tokens of a picture for GPT-4o.

    Low detail costs 85. High detail: fit into 2048 x 2048, then the shorter side to at most 768; 170 for each tile of
    512 x 512, and 85. "auto" counts as high.
    """
    if detail == "low":
        return LOW_DETAIL
    scale = min(1.0, 2048 / max(width, height))
    scale *= min(1.0, 768 / (min(width, height) * scale))
    tiles = math.ceil(round(width * scale) / TILE) * math.ceil(round(height * scale) / TILE)
    return LOW_DETAIL + TILE_TOKENS * tiles


def _size(picture: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(picture)) as image:
        return image.size
