"""Segments an input into a result folder or onto standard output, offline (two passes over it) or online (one pass)."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from entitysam.cli.shared.progress import FrameBar, frame_bar, note, warn
from entitysam.cli.shared.resume import ResumeFolder
from entitysam.cli.shared.stopping import StopRequest
from entitysam.engine.build import OpenedModel
from entitysam.engine.methods.appearance import build_segmenter
from entitysam.inference.segmenter import SegmentedVideo, VideoSegmenter
from entitysam.inference.tiles import TiledVideo, grid_for, stream_tiles
from entitysam.inference.windows.video import WindowedVideo
from entitysam.io.files import whole_file
from entitysam.io.id_maps import read_ids
from entitysam.io.readers.source import FrameSource
from entitysam.io.result_folder import EVENTS, LINES, MASKS, remove_results
from entitysam.io.writers.annotations import EntityNames
from entitysam.io.writers.frame_lines import read_lines
from entitysam.io.writers.preview import Preview
from entitysam.io.writers.ring import RingWriter
from entitysam.io.writers.segments import ResultWriter, WrittenResult
from entitysam.io.writers.stdout import StdoutWriter
from entitysam.visualization.overlay import draw_entities

if TYPE_CHECKING:
    from entitysam.masa.reid import Reidentifier, SegmentedFrames


@dataclass
class Job:
    """What is segmented, and where the results go.

    Attributes:
        source: the frames.
        reopen: opens the same input again, for a pass beside the current one.
        identity: of the input, as plain data; a changed input has another one.
        out: existing result folder; None = JSON Lines on standard output.
        title: the video's name in the results.
        origin: what opens the input again, as plain data for `tracks.json`; None for live inputs.
        online: causal segmentation; always used for live inputs.
        resume: continue an interrupted run.
        quiet: no progress bars.
        keep: seconds of an online run that stay in the result folder; None = all.
        preview: shows an online run.
        window: frames of a window; None = the whole video in one run.
        tiles: (R, C) grid of tiles; None = whole frames, unless `entities` asks for more.
        entities: number of entities on a frame for which tiles are chosen.
        reidentifier: gives returning entities their earlier ids; offline only.
        other_files: names of files that the run writes into the folder besides those of the writer.
    """

    source: FrameSource
    reopen: Callable[[], FrameSource]
    identity: dict[str, Any]
    out: Path | None
    title: str
    origin: dict[str, Any] | None = None
    online: bool = False
    resume: bool = False
    quiet: bool = False
    keep: float | None = None
    preview: Preview | None = None
    window: int | None = None
    tiles: tuple[int, int] | None = None
    entities: int | None = None
    reidentifier: "Reidentifier | None" = None
    other_files: Sequence[str] = ()

    @property
    def is_resumable(self) -> bool:
        return not (self.window or self.tiles or self.entities)

    def grid(self, num_queries: int) -> tuple[int, int]:
        """The tiles, for a network with so many queries."""
        if self.entities is not None:
            return grid_for(self.entities, num_queries, (self.source.height, self.source.width))
        return self.tiles or (1, 1)

    def second_pass(self, num_queries: int) -> bool:
        """Whether a further run looks for entities on what no entity claims."""
        return self.entities is not None and self.grid(num_queries) != (1, 1)

    def num_runs(self, num_queries: int) -> int:
        """Runs of the network over each frame."""
        rows, columns = self.grid(num_queries)
        return rows * columns + self.second_pass(num_queries)

    def open_writer(
        self, *other_files: str, names: EntityNames | None = None, finished: int = 0
    ) -> ResultWriter | StdoutWriter:
        """The writer of the result folder, whose list of files also names `other_files`; or of standard output."""
        if self.out is None:
            return StdoutWriter()
        source = self.source
        size, files = (source.width, source.height), [*self.other_files, *other_files]
        return ResultWriter(self.out, self.title, *size, source.fps, self.origin, names, files, finished)

    def open_online_writer(
        self, finished: int, resume: "ResumeFolder | None"
    ) -> ResultWriter | StdoutWriter | RingWriter:
        """The writer of an online run, of which `finished` frames are written already."""
        if self.out is None or resume is None or self.keep is None:
            return self.open_writer(EVENTS, finished=finished)
        open_writer: Any = partial(self.open_writer, EVENTS)
        return RingWriter(self.out, resume.path / "frames", self.keep, open_writer)

    def remove_results(self) -> None:
        """Removes the files of an earlier run from the result folder."""
        if self.out is not None:
            remove_results(self.out)


def run_job(job: Job, opened: OpenedModel, inference: dict[str, Any]) -> WrittenResult:
    """Segments, writes the results, shows warnings and prints the summary line."""
    started = time.monotonic()
    online = job.online or job.source.is_live
    identity = {"input": job.identity, "model": opened.fingerprint, "inference": inference, "online": online}
    resume = None if job.out is None else ResumeFolder(job.out, identity, job.resume)
    if job.resume and resume and not resume.continues:
        note(f"{job.out}: nothing to resume, starting from the first frame", job.quiet)
    segmenter = build_segmenter(opened.model, inference)
    try:
        segment = segment_online if online else segment_windows if job.window else segment_offline
        written = segment(segmenter, job, resume)
    except BaseException:
        if resume is None:
            pass
        elif job.source.is_live or not job.is_resumable:
            resume.remove()
        elif resume.keep_progress():
            note(f"{job.out}: unfinished; the same command with --resume continues")
        raise
    if resume:
        resume.remove()
    summarize(job, written, time.monotonic() - started)
    return written


def summarize(job: Job, written: WrittenResult, seconds: float) -> None:
    """Shows the warnings of a run and prints its summary line."""
    for warning in [*job.source.warnings, *written.warnings]:
        warn(warning)
    counts = f"{_count(written.num_frames, 'frame')}, {_count(written.num_entities, 'entity')}"
    line = f"{counts} in {seconds:.1f} s ({written.num_frames / seconds:.2f} frames/s): {job.out or 'stdout'}"
    print(line, file=sys.stdout if job.out else sys.stderr)


def _count(number: int, noun: str) -> str:
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{number} {noun if number == 1 else plural}"


def segment_offline(segmenter: VideoSegmenter, job: Job, resume: ResumeFolder | None) -> WrittenResult:
    """The published protocol: runs the network on all frames, then merges, draws and writes in a second pass."""
    source = job.source
    size = (source.height, source.width)
    grid = job.grid(segmenter.num_queries)
    steps = None if source.num_frames is None else source.num_frames * job.num_runs(segmenter.num_queries)
    with frame_bar("segmenting", steps, job.quiet) as bar, StopRequest() as stop:

        def on_frame() -> None:
            bar.step()
            stop.check()

        found: SegmentedVideo | TiledVideo
        if grid == (1, 1):
            found = segmenter.segment(source, size, on_frame, resume.records if resume else None)
        else:
            found = TiledVideo(segmenter, source, size, grid, on_frame, job.second_pass(segmenter.num_queries))
    segmented: SegmentedFrames = found
    if job.reidentifier is not None:
        with frame_bar("comparing", source.num_frames, job.quiet) as bar:
            segmented = job.reidentifier.merge(source, segmented, bar.step)
    written = write_result(job, segmented)
    _warn_of_saturation(found.saturated, segmenter, job)
    return written


def write_result(job: Job, segmented: "SegmentedFrames", names: EntityNames | None = None) -> WrittenResult:
    """Draws and writes a segmented video, reading its frames once more."""
    source = job.source
    job.remove_results()
    with (
        job.open_writer(names=names) as writer,
        frame_bar("drawing", segmented.num_frames, job.quiet) as bar,
    ):
        for index, (frame, ids) in enumerate(zip(source, segmented.iter_ids(), strict=True)):
            scores = dict(enumerate(segmented.frame_scores[:, index].tolist(), start=1))
            writer.add(source.name(index), frame, ids, scores, source.time(index))
            bar.step()
        return writer.finish(dict(enumerate(segmented.scores.tolist(), start=1)))


def segment_windows(segmenter: VideoSegmenter, job: Job, resume: ResumeFolder | None) -> WrittenResult:
    """The published protocol window by window; the frames of a window are written when it is segmented."""
    queries = segmenter.num_queries
    grid, second_pass = job.grid(queries), job.second_pass(queries)
    windows = WindowedVideo([segmenter], job.source, job.window or 0, grid=grid, second_pass=second_pass)
    maps, saturated = iter(windows), False
    first = next(maps)
    job.remove_results()
    with (
        job.reopen() as again,
        job.open_writer() as writer,
        frame_bar("segmenting", job.source.num_frames, job.quiet) as bar,
        StopRequest() as stop,
    ):
        for index, (frame, found) in enumerate(zip(again, chain([first], maps), strict=True)):
            writer.add(again.name(index), frame, found.ids, found.scores, again.time(index))
            saturated |= found.saturated
            bar.step()
            stop.check()
        written = writer.finish(windows.scores)
    _warn_of_saturation(saturated, segmenter, job)
    return written


def _warn_of_saturation(saturated: bool, segmenter: VideoSegmenter, job: Job) -> None:
    rows, columns = job.grid(segmenter.num_queries)
    count = job.num_runs(segmenter.num_queries) * segmenter.num_queries
    if saturated:
        second_pass = job.second_pass(segmenter.num_queries)
        where = " of the second pass" if second_pass else "" if rows * columns == 1 else " of a tile"
        warn(
            f"all {segmenter.num_queries} queries{where} show an entity, others may be missing: "
            f"--entities {2 * count} or --tiles {max(rows, columns) + 1}x{max(rows, columns) + 1} finds more"
        )


def segment_online(segmenter: VideoSegmenter, job: Job, resume: ResumeFolder | None) -> WrittenResult:
    """Causal segmentation: every frame is written at once. Ctrl-C on a live input ends it and completes the result."""
    source = job.source
    grid, saturated = job.grid(segmenter.num_queries), False
    whole = grid == (1, 1)
    records = None if resume is None or source.is_live else resume.records
    second_pass = job.second_pass(segmenter.num_queries)
    stream = (
        segmenter.stream(source, records) if whole else stream_tiles(segmenter, source, grid, second_pass=second_pass)
    )
    on_request = source.end if source.is_live else lambda: None
    with closing(stream) as results, StopRequest(on_request) as stop, ExitStack() as stack:
        first = next(results, None)
        if first is None:
            stop.check()
        continues = resume is not None and resume.continues
        if not continues:
            job.remove_results()
        finished = 0
        if job.out is not None and continues:
            finished = first.index if first else sum(1 for _ in read_lines(job.out / LINES))
        writer = job.open_online_writer(finished, resume)
        stack.enter_context(writer)
        bar = stack.enter_context(frame_bar("segmenting", source.num_frames, job.quiet))
        scores: dict[int, float] = {}  # last confidence of each id
        _add_finished(job, writer, finished, scores, bar)
        for result in chain([first] if first else [], results):
            time = source.time(result.index)
            writer.add(source.name(result.index), result.frame, result.ids, result.scores, time, result.events)
            if job.keep is None:
                scores |= result.scores
            if job.preview is not None:
                job.preview.show(partial(draw_entities, result.frame, result.ids))
            saturated |= result.saturated
            bar.step()
            if source.is_live and stop.requested:
                break
            stop.check()
        if source.is_live and stop.requested:
            note("stopped: finishing the files", job.quiet)
        written = writer.finish(scores)
        if job.out is not None:
            _write_events(job.out)
    _warn_of_saturation(saturated, segmenter, job)
    return written


def _write_events(out: Path) -> None:
    """Writes `events.json` from the lines of the frames."""
    events = [{"frame": line["frame"], **event} for line in read_lines(out / LINES) for event in line.get("events", [])]
    with whole_file(out / EVENTS) as temporary:
        temporary.write_text(json.dumps({"events": events}, indent=1), encoding="utf-8")


def _add_finished(
    job: Job, writer: ResultWriter | StdoutWriter | RingWriter, count: int, scores: dict[int, float], bar: FrameBar
) -> None:
    """Draws the frames that an interrupted run has finished, whose masks and lines are written; adds to `scores`."""
    if job.out is None or not count:
        return
    with job.reopen() as again:
        for index, (frame, line) in enumerate(zip(again, read_lines(job.out / LINES), strict=False)):
            name = again.name(index)
            ids = read_ids(job.out / MASKS / f"{name}.png")
            frame_scores = {info["id"]: info["score"] for info in line["segments_info"]}
            writer.add(name, frame, ids, frame_scores, again.time(index))
            scores |= frame_scores
            bar.step()
