"""What all classifiers share: pictures in, answers out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from entitysam.classification.labels import Label
from entitysam.classification.visual_prompts import VisualPrompt
from entitysam.registry import CLASSIFIERS

OnDone = Callable[[int], None]  # so many more pictures have their answer


@dataclass(frozen=True)
class Answer:
    """What a classifier says of a picture.

    Attributes:
        name: of the class; None = unknown: no usable answer could be had.
        index: place in the class list; None where there is no list.
        confidence: 0..1.
    """

    name: str | None
    index: int | None = None
    confidence: float = 1.0


UNKNOWN = Answer(None, None, 0.0)


class ClassifierError(ValueError):
    """A classifier cannot work at all: no picture will get an answer, so there is no use in going on."""


class Classifier(Protocol):
    """Names pictures. The factories in CLASSIFIERS take `labels` (None = free naming) and `visual_prompt` by keyword."""

    def classify(self, pictures: Sequence[bytes], on_done: OnDone = ...) -> list[Answer]:
        """An answer for each encoded picture.

        Raises:
            ClassifierError: it cannot work at all.
        """

    def statistics(self) -> dict[str, Any]:
        """What the answers so far took, as plain data for reports."""


@CLASSIFIERS.register("none")
class NoClassifier:
    """Leaves entities without names."""

    def __init__(self, labels: tuple[Label, ...] | None, visual_prompt: VisualPrompt) -> None:
        self.labels = labels

    def classify(self, pictures: Sequence[bytes], on_done: OnDone = lambda count: None) -> list[Answer]:
        on_done(len(pictures))
        return [UNKNOWN] * len(pictures)

    def statistics(self) -> dict[str, Any]:
        return {}
