"""Errors of a chat server: the server's sentence, whether to retry, and which setting to change."""

import re
from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

MAX_SENTENCE = 300  # characters of a server's sentence that are shown
HINTS = {  # word in the sentence -> what to do
    r"response_format|json": "classifier.json_mode=false sends no response_format",
    r"context length|too (?:long|large|many)": "classifier.batch_size=1 sends one image per request",
    r"vision|image|multi-?modal": "--vlm MODEL names a model that takes images",
    r"temperature|parameter|field|argument": "classifier.parameters={} sends no further fields",
}


class Fault(Exception):
    """A request without a usable reply.

    Attributes:
        kind: "429", "500", "time-out", "connection", ...; counted by kind.
        again: whether the same request may succeed later.
        retry_after: seconds that the server asks to wait.
        sentence: the server's explanation on one line; "" where it gives none.
        refused: fields of the request that the server refuses; the request is repeated without them.
    """

    def __init__(
        self,
        kind: str,
        again: bool = True,
        retry_after: float = 0.0,
        sentence: str = "",
        refused: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(kind)
        self.kind = kind
        self.again = again
        self.retry_after = retry_after
        self.sentence = sentence
        self.refused = refused

    def describe(self, server: str) -> str:
        """One line for the user: the sentence, and what is done or can be done about it."""
        said = f'{server} replies {self.kind}: "{self.sentence}"'
        if self.refused:
            names = ", ".join(sorted(self.refused))
            key = "classifier.json_mode=false" if "response_format" in self.refused else "classifier.parameters={...}"
            return f"{said}; retrying without {names} ({key} leaves it out)"
        hint = next((text for word, text in HINTS.items() if re.search(word, self.sentence, re.IGNORECASE)), "")
        return f"{said}; {hint}" if hint else said


def sentence_of(body: Any, secret: str = "") -> str:
    """The sentence in an error body, on one printable line without the secret.

    Args:
        body: parsed JSON ({"error": {"message": ...}}, {"detail": ...}, {"message": ...}, a list of these) or text.
        secret: the key, which some servers repeat.
    """
    for _ in range(5):  # levels of nesting
        if isinstance(body, list):
            body = body[0] if body else ""
        elif isinstance(body, Mapping):
            body = next((body[key] for key in ("error", "message", "detail", "msg") if body.get(key)), "")
    text = body if isinstance(body, str) else ""
    text = text.replace(secret, "***") if secret else text
    text = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(text.split())[:MAX_SENTENCE]


def refused_fields(sentence: str, parameter: Any, fields: Iterable[str]) -> frozenset[str]:
    """The fields of a request that an error names.

    Args:
        sentence: of the error.
        parameter: the error's `param`, by which some servers name the field.
        fields: names of the optional fields of the request.
    """
    fields = list(fields)
    head = str(parameter or "").partition(".")[0]
    if head in fields:
        return frozenset([head])
    return frozenset(name for name in fields if re.search(rf"\b{re.escape(name)}\b", sentence))


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds to wait by the `Retry-After` header (seconds or a date) or OpenAI's `retry-after-ms`; 0 without."""
    try:
        if "retry-after-ms" in headers:
            return max(float(headers["retry-after-ms"]) / 1000, 0.0)
        return max(float(headers.get("retry-after", 0)), 0.0)
    except ValueError:
        pass
    try:
        return max(parsedate_to_datetime(headers["retry-after"]).timestamp() - time(), 0.0)
    except (TypeError, ValueError, KeyError):
        return 0.0
