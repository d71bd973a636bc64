"""Names for a result folder, with progress and a summary."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from entitysam.classification.labeller import Labeller
from entitysam.classification.labels import Label
from entitysam.classification.vlm.classifier import VisionLanguageClassifier
from entitysam.classification.vlm.cost import Estimate
from entitysam.cli.shared.progress import frame_bar
from entitysam.engine.labelling.results import SavedResult, draw_result, entity_names, write_named, write_shown
from entitysam.io.readers.source import FrameSource


def label_result(
    folder: Path,
    out: Path,
    source: FrameSource,
    labeller: Labeller,
    labels: tuple[Label, ...] | None,
    dry_run: bool = False,
    quiet: bool = False,
) -> None:
    """Names the entities of a result and writes it again.

    Args:
        folder: with the result of `entitysam segment`.
        out: for the named one; may be the same.
        source: the frames it was made of.
        labeller, labels: as of `cli.shared.labels.open_labeller`.
        dry_run: only print what naming would take.
        quiet: no progress bars.

    Raises:
        InputError: no result, or other frames; ClassifierError: no names are to be had.
    """
    result = SavedResult.read(folder)
    shown = draw_result(result, source, labeller)
    if dry_run:
        print_estimate(labeller, [[crop.image for crop in shown]])
        return
    with frame_bar("naming", len(shown), quiet) as bar:
        answers = labeller.name(shown, len(result.frame_scores), bar.advance)
    with frame_bar("drawing", len(result.frames), quiet) as bar:
        write_named(result, source, out, entity_names(answers, labels), bar.step)
    write_shown(out, str(result.head["video_id"]), shown, answers)
    visible = {one.entity for one in shown}
    unknown = sum(answers[entity - 1].name is None for entity in visible)
    print(summary(len(visible), unknown, labeller.classifier.statistics(), out))


def print_estimate(labeller: Labeller, pictures: Sequence[Sequence[bytes]]) -> None:
    """One line with what naming the pictures of some videos would take."""
    if isinstance(labeller.classifier, VisionLanguageClassifier):
        print(Estimate.total([labeller.classifier.estimate(video) for video in pictures]))
    else:
        print(f"{sum(map(len, pictures))} pictures, named on this machine: no requests, no cost")


def summary(entities: int, unknown: int, took: Mapping[str, Any], out: Path) -> str:
    """The last line of a command: how many names, and what they took."""
    left = f", {unknown} unknown" if unknown else ""
    cost = ""
    if "requests" in took:
        cost = f" ({took['requests']} requests, {took['cached']} answers from disk, cost {took['cost']:.4f})"
    return f"{entities - unknown} of {entities} entities named{left}{cost}: {out}"
