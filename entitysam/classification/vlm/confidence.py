"""How sure a model was of its answers, from the log-probabilities of the tokens it wrote them with."""

import math
import re
from collections.abc import Sequence

Token = tuple[str, float]  # text, natural log-probability


def answer_confidence(text: str, tokens: Sequence[Token], number: int) -> float:
    """Probability 0..1 of the value that a reply gives under the key of picture `number`.

    Args:
        text: the reply, a JSON object.
        tokens: that it is made of.
        number: of the picture, from 1.

    Returns:
        the product of the probabilities of the value's tokens; 1 where the tokens are not those of the text.
    """
    found = re.search(rf'"{number}"\s*:\s*"?([^,"}}]+)', text)
    if found is None or "".join(token for token, _ in tokens) != text:
        return 1.0
    start, end = found.span(1)
    total, place = 0.0, 0
    for token, value in tokens:
        if place < end and place + len(token) > start:
            total += value
        place += len(token)
    return min(math.exp(total), 1.0)
