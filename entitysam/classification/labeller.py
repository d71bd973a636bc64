"""From the masks of a video to a name for each entity: choose frames, draw pictures, ask, count the votes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from entitysam.classification.classifier import UNKNOWN, Answer, Classifier, OnDone
from entitysam.classification.frame_choice import choose_frames
from entitysam.classification.masklets import Masklets
from entitysam.classification.visual_prompts import VisualPrompt
from entitysam.registry import ConfigError


@dataclass(frozen=True)
class EntityCrop:
    """A picture for the classifier.

    Attributes:
        entity: id 1..n.
        frame: from 0.
        picture: JPEG.
    """

    entity: int
    frame: int
    image: bytes


class Labeller:
    """Names the entities of videos.

    Args:
        classifier: gives the answers.
        visual_prompt: draws the pictures.
        top_frames: the frames of highest confidence that an entity is shown on; more than one take a vote.

    Raises:
        ConfigError: no frames.
    """

    def __init__(self, classifier: Classifier, visual_prompt: VisualPrompt, top_frames: int = 1) -> None:
        if top_frames < 1:
            raise ConfigError(f"classifier.top_frames must be 1 or more, not {top_frames}")
        self.classifier = classifier
        self.visual_prompt = visual_prompt
        self.top_frames = top_frames

    def draw(
        self, masklets: Masklets, frames: Iterable[np.ndarray], frame_scores: np.ndarray | None = None
    ) -> list[EntityCrop]:
        """The pictures of a video, by frame and entity.

        Args:
            masklets: of the n entities.
            frames: uint8 [H, W, 3] RGB; brought to the size of the masks where they have another.
            frame_scores: [n, T], see `choose_frames`.

        Raises:
            ValueError: there are fewer frames than masks.
        """
        chosen = choose_frames(masklets.areas(), frame_scores, self.top_frames)
        wanted: dict[int, list[int]] = {}
        for entity, best in enumerate(chosen, start=1):
            for frame in best:
                wanted.setdefault(frame, []).append(entity)
        shown = []
        for index, (pixels, mask_of) in enumerate(zip(frames, masklets.frames())):
            for entity in wanted.pop(index, ()):
                mask = mask_of(entity)
                if pixels.shape[:2] != mask.shape:
                    pixels = cv2.resize(pixels, mask.shape[::-1], interpolation=cv2.INTER_AREA)
                shown.append(EntityCrop(entity, index, self.visual_prompt.encode(pixels, mask)))
            if not wanted:
                break
        if wanted:
            raise ValueError(
                f"the frames end before frame {max(wanted)}, on which entity {wanted[max(wanted)][0]} is shown"
            )
        return shown

    def name(
        self, shown: Sequence[EntityCrop], num_entities: int, on_done: OnDone = lambda count: None
    ) -> list[Answer]:
        """An answer for each entity 1..n; UNKNOWN for one without pictures."""
        answers = self.classifier.classify([crop.image for crop in shown], on_done)
        ballots: list[list[Answer]] = [[] for _ in range(num_entities)]
        for one, answer in zip(shown, answers, strict=True):
            ballots[one.entity - 1].append(answer)
        return [vote(ballot) for ballot in ballots]


def vote(answers: Sequence[Answer]) -> Answer:
    """The name with the most confidence behind it, first come first served among equals.

    Its confidence is its share: the sum over the pictures that got it / number of pictures, 0..1.
    """
    support: dict[str, float] = {}
    for answer in answers:
        if answer.name is not None:
            support[answer.name] = support.get(answer.name, 0.0) + answer.confidence
    if not support:
        return UNKNOWN
    winner = max(support, key=lambda name: support[name])
    index = next(answer.index for answer in answers if answer.name == winner)
    return Answer(winner, index, support[winner] / len(answers))
