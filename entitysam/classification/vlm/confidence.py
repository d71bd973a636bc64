"""Confidence of answers from the log-probabilities of their tokens."""

import math
import re
from collections.abc import Sequence

Token = tuple[str, float]  # text, natural log-probability


def answer_confidence(text: str, tokens: Sequence[Token], number: int, start: int = 0) -> float:
    """Probability of the value under the key of image `number`.

    Args:
        text: the reply.
        tokens: tokens of the whole reply.
        number: number of the image, from 1.
        start: position of the JSON object with the answers in `text`.

    Returns:
        product of the probabilities of the value's tokens, 0..1; 1 where `tokens` do not add up to `text`.
    """
    found = re.compile(rf'"{number}"\s*:\s*"?([^,"}}]+)').search(text, start)
    if found is None or "".join(token for token, _ in tokens) != text:
        return 1.0
    first, end = found.span(1)
    total, position = 0.0, 0
    for token, log_probability in tokens:
        if position < end and position + len(token) > first:  # the token overlaps the value
            total += log_probability
        position += len(token)
    return min(math.exp(total), 1.0)
