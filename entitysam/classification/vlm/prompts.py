"""Builds the chat messages for a batch of images and a class list (supplement, Table 1)."""

import base64
import json
from collections.abc import Sequence
from string import Template
from typing import Any

from entitysam.classification.labels import Label
from entitysam.config import read_shipped
from entitysam.registry import ConfigError

CLOSED, FREE = "closed", "free"


class Prompts:
    """The messages for a vision-language model.

    Args:
        labels: the class list; None = free naming.
        kind: kind of the visual prompt, one of `visual_prompts.KINDS`.
        wording: name of a file in `configs/prompts`; empty = "closed" with a class list, "free" without.

    Raises:
        ConfigError: no such file, or a part is missing in it.
    """

    def __init__(self, labels: Sequence[Label] | None, kind: str, wording: str = "") -> None:
        parts = read_wording(wording or (FREE if labels is None else CLOSED))
        self.labels = labels
        self._system, self._image = Template(parts["system"]), Template(parts["image"])
        if kind not in parts["regions"]:
            raise ConfigError(f"configs/prompts: 'regions' has no text for the visual prompt '{kind}'")
        self._region = parts["regions"][kind]

    def system(self, count: int) -> str:
        """The instructions for `count` images."""
        values: Sequence[int | str] = (
            ("dog", "brick wall") if self.labels is None else (0, min(1, len(self.labels) - 1))
        )
        example = json.dumps({str(number): value for number, value in zip(range(1, count + 1), values)})
        class_list = {str(index): label.name for index, label in enumerate(self.labels or ())}
        return self._system.substitute(
            images=count,
            pictures=count,  # former name of `images`
            classes=len(class_list),
            list=json.dumps(class_list, ensure_ascii=False),
            example=example if count < 3 else example[:-1] + ", ...}",
        )

    def image(self, number: int) -> str:
        """The text in front of image `number`, from 1."""
        return self._image.substitute(number=number, region=self._region)

    def fingerprint(self) -> str:
        """All text that an answer depends on, independent of the batch size."""
        return "\n".join([self.system(1), self.image(1)])

    def messages(self, images: Sequence[bytes], detail: str = "auto") -> list[dict[str, Any]]:
        """Chat messages for JPEGs, numbered from 1.

        Args:
            images: encoded.
            detail: "low", "high" or "auto"; "auto" is the default of the protocol and is not sent.
        """
        content: list[dict[str, Any]] = []
        extra = {} if detail == "auto" else {"detail": detail}
        for number, image in enumerate(images, start=1):
            url = "data:image/jpeg;base64," + base64.b64encode(image).decode("ascii")
            content.append({"type": "text", "text": self.image(number)})
            content.append({"type": "image_url", "image_url": {"url": url, **extra}})
        return [{"role": "system", "content": self.system(len(images))}, {"role": "user", "content": content}]


def read_wording(name: str) -> dict[str, Any]:
    """Reads `configs/prompts/<name>.yaml`; the former key `picture` is accepted for `image`.

    Raises:
        ConfigError: no such file, or a part is missing.
    """
    parts = read_shipped("prompts", name)
    if "picture" in parts:
        parts.setdefault("image", parts["picture"])
    missing = [part for part in ("system", "image", "regions") if part not in parts]
    if missing:
        raise ConfigError(f"configs/prompts/{name}.yaml: key '{missing[0]}' is missing")
    return parts
