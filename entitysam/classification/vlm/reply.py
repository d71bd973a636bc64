"""Parses replies of a vision-language model: the last JSON object that fits, checked against the class list."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from entitysam.classification.classifier import Answer
from entitysam.classification.labels import Label, clean_name
from entitysam.registry import ConfigError

# An object with the answers holds no further object, so braces need no nesting: one linear scan, no recursion.
FLAT_OBJECT = re.compile(r"\{[^{}]*\}")
MAX_OBJECTS = 1000  # of one reply, counted from its end
THINK, THINK_END = "<think>", "</think>"


class MalformedReply(ValueError):
    """A reply without a usable JSON object."""


@dataclass(frozen=True)
class ParsedReply:
    """The valid answers of a reply.

    Attributes:
        answers: position of the image, from 0 -> answer; images without a valid answer are left out.
        start: position of the JSON object in the reply.
    """

    answers: dict[int, Answer]
    start: int


class ReplyParser:
    """Parses replies.

    Args:
        labels: the class list; None = free naming.
    """

    def __init__(self, labels: Sequence[Label] | None) -> None:
        self.labels = labels
        self._index = {label.name.lower(): index for index, label in enumerate(labels or ())}

    def parse(self, text: str, count: int) -> ParsedReply:
        """The answers for `count` images.

        Reasoning in a `<think>` block is ignored. Of the JSON objects after it, the last one fits whose keys are the
        image numbers 1..count and whose values are all valid; without one, the last one with these keys. With another
        number of keys the numbering cannot be trusted, and the object is not used. A single image accepts any key.

        Raises:
            MalformedReply: no object fits.
        """
        expected = {str(number) for number in range(1, count + 1)}
        objects = _json_objects(text)
        fitting = [(values, start) for values, start in objects if set(values) == expected]
        if not fitting and count == 1:
            fitting = [({"1": next(iter(values.values()))}, start) for values, start in objects if len(values) == 1]
        if not fitting:
            raise MalformedReply(f"no JSON object with one answer for each of {count} images in the reply")
        parsed = [self._parse_object(values, start) for values, start in fitting]
        return next((reply for reply in parsed if len(reply.answers) == count), parsed[0])

    def _parse_object(self, values: dict[str, Any], start: int) -> ParsedReply:
        answers = {int(number) - 1: self._answer(value) for number, value in values.items()}
        return ParsedReply({position: answer for position, answer in answers.items() if answer is not None}, start)

    def _answer(self, value: Any) -> Answer | None:
        """The answer of an index (number or text) or a name; any valid name in free naming. None = not valid."""
        if isinstance(value, bool) or not isinstance(value, int | str):
            return None
        if self.labels is None:
            return _free_name(value)
        text = str(value).strip()
        index = int(text) if re.fullmatch(r"[0-9]{1,6}", text) else self._index.get(text.lower(), -1)
        return Answer(self.labels[index].name, index) if 0 <= index < len(self.labels) else None


def _json_objects(text: str) -> list[tuple[dict[str, Any], int]]:
    """The JSON objects of a reply after its reasoning, with their positions, last first."""
    begin = text.rfind(THINK_END)
    opened = text.find(THINK, max(begin, 0))  # a block that is never closed has no answer after it
    spans = FLAT_OBJECT.finditer(text, max(begin, 0), opened if opened >= 0 else len(text))
    objects = []
    for match in list(spans)[: -MAX_OBJECTS - 1 : -1]:
        try:
            objects.append((json.loads(match[0]), match.start()))
        except (ValueError, RecursionError):
            continue
    return objects


def _free_name(value: int | str) -> Answer | None:
    try:
        name = clean_name(str(value).lower())
    except ConfigError:
        return None
    return None if name.isdigit() else Answer(name)
