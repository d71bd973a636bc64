"""Labels the entities of a video: selects frames, draws crops, classifies them, votes."""

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
    """An image of one entity for the classifier.

    Attributes:
        entity: id 1..n.
        frame: index from 0.
        image: encoded as JPEG.
    """

    entity: int
    frame: int
    image: bytes


class Labeller:
    """Labels the entities of videos.

    Args:
        classifier: classifies the crops.
        visual_prompt: draws the crops.
        top_frames: number of frames of highest confidence per entity; several frames vote.

    Raises:
        ConfigError: top_frames < 1.
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
        """The crops of a video, ordered by frame, then entity.

        Args:
            masklets: the n entities.
            frames: uint8 [H, W, 3] RGB; resized to the masks where their sizes differ.
            frame_scores: float [n, T], see `choose_frames`.

        Raises:
            ValueError: fewer frames than masks.
        """
        chosen = choose_frames(masklets.areas(), frame_scores, self.top_frames)
        entities_on: dict[int, list[int]] = {}  # frame -> entities to draw there
        for entity, best in enumerate(chosen, start=1):
            for frame in best:
                entities_on.setdefault(frame, []).append(entity)
        crops = []
        for index, (pixels, mask_of) in enumerate(zip(frames, masklets.frames())):
            for entity in entities_on.pop(index, ()):
                mask = mask_of(entity)
                if pixels.shape[:2] != mask.shape:
                    pixels = cv2.resize(pixels, mask.shape[::-1], interpolation=cv2.INTER_AREA)
                crops.append(EntityCrop(entity, index, self.visual_prompt.encode(pixels, mask)))
            if not entities_on:
                break
        if entities_on:
            raise ValueError(f"the frames end before frame {max(entities_on)}, which has entities to label")
        return crops

    def classify(
        self, crops: Sequence[EntityCrop], num_entities: int, on_done: OnDone = lambda count: None
    ) -> list[Answer]:
        """An answer for each entity 1..n; UNKNOWN for an entity without crops.

        Raises:
            ClassifierError: no crop can get an answer.
        """
        answers = self.classifier.classify([crop.image for crop in crops], on_done)
        ballots: list[list[Answer]] = [[] for _ in range(num_entities)]
        for crop, answer in zip(crops, answers, strict=True):
            ballots[crop.entity - 1].append(answer)
        return [vote(ballot) for ballot in ballots]


def vote(answers: Sequence[Answer]) -> Answer:
    """The name with the largest sum of confidences; ties go to the first.

    Its confidence is that sum divided by the number of answers, 0..1.
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
