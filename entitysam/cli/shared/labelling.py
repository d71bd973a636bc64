"""Labels a result folder, with progress bars and a summary."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from entitysam.classification.labeller import Labeller
from entitysam.classification.labels import Label
from entitysam.cli.shared.progress import frame_bar
from entitysam.engine.labelling.results import check_output, draw_result, label_result, write_labelled
from entitysam.engine.labelling.saved_result import SavedResult
from entitysam.engine.labelling.video import estimate_effort
from entitysam.io.readers.source import FrameSource


def label_folder(
    result: SavedResult,
    out: Path,
    source: FrameSource,
    labeller: Labeller,
    labels: tuple[Label, ...] | None,
    dry_run: bool = False,
    quiet: bool = False,
) -> None:
    """Labels the entities of a result and writes it again.

    Args:
        result: of `entitysam segment`.
        out: folder for the labelled result; may be the same.
        source: the frames of the result.
        labeller, labels: from `cli.shared.labels.open_labeller`.
        dry_run: only print the expected effort.
        quiet: no progress bars.

    Raises:
        InputError: the frames are not those of the result; ClassifierError: no entity gets a name.
    """
    check_output(result, out)
    if dry_run:
        print(estimate_effort(labeller, [draw_result(result, source, labeller)]))
        return
    with frame_bar("labelling", len(result.ids) * labeller.top_frames, quiet) as bar:
        labelled = label_result(result, source, labeller, bar.advance)
    with frame_bar("drawing", len(result.frames), quiet) as bar:
        write_labelled(result, source, out, labelled, labels, bar.step)
    print(summary(labelled.num_visible, labelled.num_unknown, labeller.classifier.statistics(), out))


def summary(entities: int, unknown: int, statistics: Mapping[str, Any], out: Path) -> str:
    """The last line of a command: number of names, requests and cost."""
    left = f", {unknown} unknown" if unknown else ""
    cost = ""
    if "requests" in statistics:
        cost = (
            f" ({statistics['requests']} requests, {statistics['cached']} answers from the cache, "
            f"cost {statistics['cost']:.4f})"
        )
    return f"{entities - unknown} of {entities} entities named{left}{cost}: {out}"
