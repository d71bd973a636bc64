"""The interface of all classifiers: encoded images in, answers out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from entitysam.classification.labels import Label
from entitysam.classification.visual_prompts import VisualPrompt
from entitysam.registry import CLASSIFIERS

OnDone = Callable[[int], None]  # called with the number of further images that have an answer


@dataclass(frozen=True)
class Answer:
    """A classifier's answer for one image.

    Attributes:
        name: name of the class; None = unknown (no valid answer).
        index: position in the class list; None in free naming.
        confidence: 0..1.
    """

    name: str | None
    index: int | None = None
    confidence: float = 1.0


UNKNOWN = Answer(None, None, 0.0)


class ClassifierError(ValueError):
    """The classifier cannot answer any image, so the run ends."""


class Classifier(Protocol):
    """Classifies images. Factories in CLASSIFIERS take `labels` (None = free naming) and `visual_prompt` by keyword."""

    def classify(self, images: Sequence[bytes], on_done: OnDone = ...) -> list[Answer]:
        """An answer for each encoded image.

        Raises:
            ClassifierError: no image can get an answer.
        """

    def statistics(self) -> dict[str, Any]:
        """Counts of all calls so far, as plain data for reports."""


@CLASSIFIERS.register("none")
class NoClassifier:
    """Leaves all entities unknown."""

    def __init__(self, labels: tuple[Label, ...] | None, visual_prompt: VisualPrompt) -> None:
        self.labels = labels

    def classify(self, images: Sequence[bytes], on_done: OnDone = lambda count: None) -> list[Answer]:
        on_done(len(images))
        return [UNKNOWN] * len(images)

    def statistics(self) -> dict[str, Any]:
        return {}
