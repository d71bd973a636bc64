"""Labels the entities of one video."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from entitysam.classification.classifier import Answer, OnDone
from entitysam.classification.labeller import EntityCrop, Labeller
from entitysam.classification.masklets import Masklets
from entitysam.classification.vlm.classifier import VisionLanguageClassifier
from entitysam.classification.vlm.cost import Estimate
from entitysam.io.files import make_folder, whole_file
from entitysam.visualization.image_grid import draw_image_grid


@dataclass(frozen=True)
class LabelledVideo:
    """The answers of a classifier for a video.

    Attributes:
        answers: answers[i] is the answer for entity i + 1.
        crops: the images that the classifier saw.
    """

    answers: Sequence[Answer]
    crops: Sequence[EntityCrop]

    @property
    def num_visible(self) -> int:
        """Number of entities with a crop."""
        return len({crop.entity for crop in self.crops})

    @property
    def num_unknown(self) -> int:
        """Number of entities with a crop and without a name."""
        return sum(self.answers[entity - 1].name is None for entity in {crop.entity for crop in self.crops})


def label_video(
    labeller: Labeller,
    masklets: Masklets,
    frames: Iterable[np.ndarray],
    frame_scores: np.ndarray | None = None,
    on_done: OnDone = lambda count: None,
) -> LabelledVideo:
    """Selects frames, draws crops, classifies them and votes.

    Args:
        labeller: does the steps.
        masklets: masks of the n entities.
        frames: uint8 [H, W, 3] RGB, from the first on.
        frame_scores: float [n, T]; None = select frames by area.
        on_done: called with the number of further crops that have an answer.

    Raises:
        ValueError: fewer frames than masks.
        ClassifierError: no crop can get an answer.
    """
    crops = labeller.draw(masklets, frames, frame_scores)
    return LabelledVideo(labeller.classify(crops, masklets.num_entities, on_done), crops)


def estimate_effort(labeller: Labeller, videos: Sequence[Sequence[EntityCrop]]) -> str:
    """One line with the requests, tokens and cost of classifying the crops of some videos; nothing is sent."""
    if isinstance(labeller.classifier, VisionLanguageClassifier):
        classifier = labeller.classifier
        return str(Estimate.total([classifier.estimate([crop.image for crop in crops]) for crops in videos]))
    return f"{sum(map(len, videos))} images, classified on this machine: no requests, no cost"


def write_sheet(path: Path, title: str, labelled: LabelledVideo, ids: Sequence[int] | None = None) -> None:
    """Writes a sheet of the crops with their answers, as JPEG or PNG; nothing for a video without crops.

    Args:
        path: of the sheet.
        title: first line.
        labelled: crops and answers of the n entities.
        ids: the numbers to write for entities 1..n; None = 1..n.
    """
    if not labelled.crops:
        return
    captions = []
    for crop in labelled.crops:
        answer = labelled.answers[crop.entity - 1]
        number = crop.entity if ids is None else ids[crop.entity - 1]
        captions.append(f"{number}: {answer.name or 'unknown'} {answer.confidence:.0%}")
    make_folder(path.parent)
    images = [crop.image for crop in labelled.crops]
    sheet = draw_image_grid(images, captions, f"{title} · {len(labelled.answers)} entities")
    with whole_file(path) as temporary:
        sheet.save(temporary, format="PNG" if path.suffix == ".png" else "JPEG")
