"""Pictures and a class list -> chat messages; the reply -> answers that are checked against the list."""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from string import Template
from typing import Any

from entitysam.classification.classifier import Answer
from entitysam.classification.labels import Label, clean_name
from entitysam.config import read_shipped
from entitysam.registry import ConfigError

CLOSED, FREE = "closed", "free"


class MalformedReply(ValueError):
    """A reply that cannot be used."""


class Prompts:
    """The conversation with a vision-language model (supplement, Table 1).

    Args:
        labels: the class list; None = the model names regions in its own words.
        kind: of the visual prompt, which the words have to fit.
        wording: name of a file below `configs/prompts`; empty = "closed" with a class list, "free" without.

    Raises:
        ConfigError: no such wording, or one without a part that is needed.
    """

    def __init__(self, labels: Sequence[Label] | None, kind: str, wording: str = "") -> None:
        words = read_wording(wording or (FREE if labels is None else CLOSED))
        self.labels = labels
        self._system, self._picture = Template(words["system"]), Template(words["picture"])
        if kind not in words["regions"]:
            raise ConfigError(f"configs/prompts: no words for the visual prompt '{kind}' among 'regions'")
        self._region = words["regions"][kind]
        self._index = {label.name.lower(): index for index, label in enumerate(labels or ())}

    def system(self, count: int) -> str:
        """The instructions for `count` pictures."""
        values: Sequence[int | str] = (
            ("dog", "brick wall") if self.labels is None else (0, min(1, len(self.labels) - 1))
        )
        example = json.dumps({str(number): value for number, value in zip(range(1, count + 1), values)})
        listed = {str(index): label.name for index, label in enumerate(self.labels or ())}
        return self._system.substitute(
            pictures=count,
            classes=len(listed),
            list=json.dumps(listed, ensure_ascii=False),
            example=example if count < 3 else example[:-1] + ", ...}",
        )

    def fingerprint(self) -> str:
        """All words that decide an answer, whatever the number of pictures."""
        return "\n".join([self.system(1), self.picture(1)])

    def picture(self, number: int) -> str:
        """The words in front of picture `number`."""
        return self._picture.substitute(number=number, region=self._region)

    def messages(self, pictures: Sequence[bytes], detail: str = "auto") -> list[dict[str, Any]]:
        """Chat messages for JPEGs, numbered from 1.

        Args:
            pictures: encoded.
            detail: "low", "high" or "auto", see the API.
        """
        content: list[dict[str, Any]] = []
        for number, picture in enumerate(pictures, start=1):
            address = "data:image/jpeg;base64," + base64.b64encode(picture).decode("ascii")
            content.append({"type": "text", "text": self.picture(number)})
            content.append({"type": "image_url", "image_url": {"url": address, "detail": detail}})
        return [{"role": "system", "content": self.system(len(pictures))}, {"role": "user", "content": content}]

    def read_reply(self, text: str, count: int) -> dict[int, Answer]:
        """The usable answers of a reply, by position of the picture from 0.

        Single answers that are not of the list are left out. Where the reply has another number of answers than there
        were pictures, its numbers cannot be trusted and none is used.

        Raises:
            MalformedReply: no JSON object, or one with other keys than the pictures' numbers.
        """
        found = re.search(r"\{.*\}", text, re.DOTALL)
        try:
            values = json.loads(found[0] if found else text)
        except json.JSONDecodeError:
            raise MalformedReply("no JSON object in the reply") from None
        if not isinstance(values, Mapping):
            raise MalformedReply("the reply is no JSON object")
        if count == 1 and len(values) == 1:  # whatever the key, it is the answer to the one picture
            values = {"1": next(iter(values.values()))}
        if set(values) != {str(number) for number in range(1, count + 1)}:
            raise MalformedReply(f"{len(values)} answers for {count} pictures, or other keys")
        read = {number - 1: self._answer(values[str(number)]) for number in range(1, count + 1)}
        return {position: answer for position, answer in read.items() if answer is not None}

    def _answer(self, value: Any) -> Answer | None:
        """An index (as number or text) or a name of the list; without a list any name."""
        if isinstance(value, bool) or not isinstance(value, int | str):
            return None
        if self.labels is None:
            return _free_name(value)
        text = str(value).strip()
        index = int(text) if re.fullmatch(r"\d{1,6}", text) else self._index.get(text.lower(), -1)
        return Answer(self.labels[index].name, index) if 0 <= index < len(self.labels) else None


def read_wording(name: str) -> dict[str, Any]:
    """`configs/prompts/<name>.yaml`.

    Raises:
        ConfigError: there is no such file, or a part is missing.
    """
    words = read_shipped("prompts", name)
    missing = [part for part in ("system", "picture", "regions") if part not in words]
    if missing:
        raise ConfigError(f"configs/prompts/{name}.yaml: lacks '{missing[0]}'")
    return words


def _free_name(value: int | str) -> Answer | None:
    try:
        name = clean_name(str(value).lower())
    except ConfigError:
        return None
    return None if name.isdigit() else Answer(name)
