"""Segments an input into a result folder, offline (two passes over the input) or online (one pass)."""

import json
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from entitysam.cli.shared.online_journal import OnlineJournal
from entitysam.cli.shared.progress import FrameBar, frame_bar, note, warn
from entitysam.cli.shared.resume import ResumeFolder
from entitysam.cli.shared.stopping import StopRequest
from entitysam.engine.build import OpenedModel
from entitysam.inference.segmenter import VideoSegmenter
from entitysam.io.files import whole_file
from entitysam.io.id_maps import read_ids
from entitysam.io.readers.source import FrameSource
from entitysam.io.result_folder import EVENTS, MASKS, remove_results
from entitysam.io.writers.annotations import EntityNames
from entitysam.io.writers.segments import ResultWriter, WrittenResult

if TYPE_CHECKING:
    from entitysam.masa.reid import Reidentifier, SegmentedFrames


@dataclass
class Job:
    """What is segmented, and where the results go.

    Attributes:
        source: the frames.
        reopen: opens the same input again, for a pass beside the current one.
        identity: of the input, as plain data; a changed input has another one.
        out: existing result folder.
        title: the video's name in the results.
        origin: what opens the input again, as plain data for `tracks.json`; None for live inputs.
        online: causal segmentation; always used for live inputs.
        resume: continue an interrupted run.
        quiet: no progress bars.
        reidentifier: gives returning entities their earlier ids; offline only.
    """

    source: FrameSource
    reopen: Callable[[], FrameSource]
    identity: dict[str, Any]
    out: Path
    title: str
    origin: dict[str, Any] | None = None
    online: bool = False
    resume: bool = False
    quiet: bool = False
    reidentifier: "Reidentifier | None" = None

    def open_writer(self, *other_files: str, names: EntityNames | None = None) -> ResultWriter:
        """The writer of the result folder, whose list of files also names `other_files`."""
        source = self.source
        size = source.width, source.height
        return ResultWriter(self.out, self.title, *size, source.fps, self.origin, names, other_files)


def run_job(job: Job, opened: OpenedModel, inference: dict[str, Any]) -> WrittenResult:
    """Segments, writes the results, shows warnings and prints the summary line."""
    started = time.monotonic()
    online = job.online or job.source.is_live
    identity = {"input": job.identity, "model": opened.fingerprint, "inference": inference, "online": online}
    resume = ResumeFolder(job.out, identity, job.resume)
    if job.resume and not resume.continues:
        note(f"{job.out}: nothing to resume, starting from the first frame", job.quiet)
    segmenter = VideoSegmenter(opened.model, **inference)
    try:
        written = (segment_online if online else segment_offline)(segmenter, job, resume)
    except BaseException:
        if job.source.is_live:
            resume.remove()
        elif resume.keep_progress():
            note(f"{job.out}: unfinished; the same command with --resume continues")
        raise
    resume.remove()
    summarize(job, written, time.monotonic() - started)
    return written


def summarize(job: Job, written: WrittenResult, seconds: float) -> None:
    """Shows the warnings of a run and prints its summary line."""
    for warning in [*job.source.warnings, *written.warnings]:
        warn(warning)
    counts = f"{_count(written.num_frames, 'frame')}, {_count(written.num_entities, 'entity')}"
    print(f"{counts} in {seconds:.1f} s ({written.num_frames / seconds:.2f} frames/s): {job.out}")


def _count(number: int, noun: str) -> str:
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{number} {noun if number == 1 else plural}"


def segment_offline(segmenter: VideoSegmenter, job: Job, resume: ResumeFolder) -> WrittenResult:
    """The published protocol: runs the network on all frames, then merges, draws and writes in a second pass."""
    source = job.source
    size = (source.height, source.width)
    with frame_bar("segmenting", source.num_frames, job.quiet) as bar, StopRequest() as stop:

        def on_frame() -> None:
            bar.step()
            stop.check()

        segmented: SegmentedFrames = segmenter.segment(source, size, on_frame, resume.records)
    if job.reidentifier is not None:
        with frame_bar("comparing", source.num_frames, job.quiet) as bar:
            segmented = job.reidentifier.merge(source, segmented, bar.step)
    return write_result(job, segmented)


def write_result(job: Job, segmented: "SegmentedFrames", names: EntityNames | None = None) -> WrittenResult:
    """Draws and writes a segmented video, reading its frames once more."""
    source = job.source
    remove_results(job.out)
    with (
        job.open_writer(names=names) as writer,
        frame_bar("drawing", segmented.num_frames, job.quiet) as bar,
    ):
        for index, (frame, ids) in enumerate(zip(source, segmented.iter_ids(), strict=True)):
            scores = dict(enumerate(segmented.frame_scores[:, index].tolist(), start=1))
            writer.add(source.name(index), frame, ids, scores, source.time(index))
            bar.step()
        return writer.finish(dict(enumerate(segmented.scores.tolist(), start=1)))


def segment_online(segmenter: VideoSegmenter, job: Job, resume: ResumeFolder) -> WrittenResult:
    """Causal segmentation: every frame is written at once. Ctrl-C on a live input ends it and completes the result."""
    source = job.source
    with closing(segmenter.stream(source, resume.records)) as results, StopRequest() as stop:
        first = next(results, None)
        if not resume.continues:
            remove_results(job.out)
        journal = OnlineJournal(resume.records, keep=first.index if first else None)
        with (
            job.open_writer(EVENTS) as writer,
            frame_bar("segmenting", source.num_frames, job.quiet) as bar,
        ):
            _add_finished(job, writer, journal, bar)
            for result in chain([first] if first else [], results):
                time = source.time(result.index)
                writer.add(source.name(result.index), result.frame, result.ids, result.scores, time)
                journal.add(result)
                bar.step()
                if source.is_live and stop.requested:
                    note("stopped: finishing the files", job.quiet)
                    break
                stop.check()
            written = writer.finish(journal.scores)
            with whole_file(job.out / EVENTS) as temporary:
                temporary.write_text(json.dumps({"events": journal.events}, indent=1), encoding="utf-8")
    return written


def _add_finished(job: Job, writer: ResultWriter, journal: OnlineJournal, bar: FrameBar) -> None:
    """Draws the frames that an interrupted run has finished; their masks are written, their scores are in the journal."""
    if not journal.frames:
        return
    with job.reopen() as again:
        for index, (frame, line) in enumerate(zip(again, journal.frames, strict=False)):
            name = again.name(index)
            ids = read_ids(job.out / MASKS / f"{name}.png")
            writer.add(name, frame, ids, line.scores, again.time(index))
            bar.step()
