"""`entitysam segment --prompts`: follows prompted objects with SAM 2.1 into a result folder."""

import argparse
import time
from collections.abc import Sequence
from typing import Any

from entitysam.cli.shared.progress import frame_bar
from entitysam.cli.shared.results import Job, summarize, write_result
from entitysam.cli.shared.stopping import StopRequest
from entitysam.engine.build import OpenedModel, open_model
from entitysam.io.writers.annotations import EntityNames
from entitysam.io.writers.segments import WrittenResult
from entitysam.sam2.prompts import Prompt
from entitysam.sam2.segmenter import PromptedSegmenter
from entitysam.shipped import is_weight_file


def open_prompted_model(arguments: argparse.Namespace, overrides: dict[str, Any]) -> OpenedModel:
    """The SAM 2.1 of a command line: `--weights FILE`, `--model FILE`, or `--model sam2_small` (its file in `checkpoints/`).

    Raises:
        CheckpointError: no such file, or the file is another network.
    """
    if is_weight_file(arguments.model):
        return open_model(arguments.model, device=arguments.device, overrides=overrides, kind="sam2")
    model = arguments.model if arguments.model.startswith("sam2") else ""
    return open_model(model, arguments.weights, device=arguments.device, overrides=overrides, kind="sam2")


def run_prompted(job: Job, opened: OpenedModel, prompts: Sequence[Prompt], amp: str) -> WrittenResult:
    """Segments the prompted objects, writes the results, shows warnings and prints the summary line."""
    started = time.monotonic()
    segmenter = PromptedSegmenter(opened.model, amp=amp)
    with frame_bar("segmenting", job.source.num_frames, job.quiet) as bar, StopRequest() as stop:

        def on_frame() -> None:
            bar.step()
            stop.check()

        segmented = segmenter.segment(job.source, prompts, on_frame=on_frame)
    written = write_result(job, segmented, _entity_names(segmented.names) if segmented.names else None)
    summarize(job, written, time.monotonic() - started)
    return written


def _entity_names(names: dict[int, str]) -> EntityNames:
    """Names of prompts as categories of the result, in the order of their first use."""
    listed = list(dict.fromkeys(names.values()))
    categories = [{"id": number, "name": name, "isthing": 1} for number, name in enumerate(listed, start=1)]
    return EntityNames(
        categories,
        {object_id: 1 + listed.index(name) for object_id, name in names.items()},
        dict.fromkeys(names, 1.0),
    )
