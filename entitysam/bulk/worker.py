"""What one worker does: it opens the network once and turns videos into Parquet files. It knows no engine.

Importing this module loads neither torch nor OpenCV: a process sets its number of threads first.
"""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from entitysam.bulk.settings import DONE, Clip, Outcome, Settings
from entitysam.io.files import OutputError

if TYPE_CHECKING:
    import numpy as np

    from entitysam.bulk.preview import WatchedFrames
    from entitysam.io.readers.source import FrameSource
    from entitysam.io.writers.segments import ResultWriter

ENVIRONMENT = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class JobError(RuntimeError):
    """The job cannot go on, whatever the video: no weights, a full disk."""


def set_threads(count: int) -> None:
    """Limits this process to so many CPU threads; to be called before torch is imported."""
    os.environ.update(dict.fromkeys(ENVIRONMENT, str(count)))
    import cv2
    import torch

    torch.set_num_threads(count)
    cv2.setNumThreads(count)


class VideoWorker:
    """Segments one video after the other.

    Args:
        settings: of the job.
        out: its output, with the folders of `make_folders`.
        on_frames: called with a number of frames that were segmented, about once a second.

    Raises:
        JobError: the network cannot be opened.
    """

    def __init__(self, settings: Settings, out: Path, on_frames: Callable[[int], None] = lambda count: None) -> None:
        set_threads(settings.threads)
        from entitysam.engine.build import open_model
        from entitysam.inference.segmenter import VideoSegmenter

        self._settings, self._out, self._on_frames = settings, out, on_frames
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        try:
            opened = open_model(
                settings.model,
                settings.weights,
                device=settings.device,
                overrides=settings.overrides,
                kind="entity_sam",
            )
            self._segmenter = VideoSegmenter(opened.model, **settings.inference)
        except (ValueError, OSError, RuntimeError) as error:
            raise JobError(str(error)) from error

    def run(self, clip: Clip) -> Outcome:
        """Segments a video. A video that cannot be segmented is an outcome, too.

        Raises:
            JobError: the results cannot be written.
            Exception: anything but bad input; the process may be damaged and should be replaced.
        """
        started = time.monotonic()
        try:
            outcome = self._segment(clip, started)
        except OutputError as error:
            if error.__cause__ is not None:  # the disk is full or gone, not only too small for this video
                raise JobError(str(error)) from error
            outcome = Outcome.of(clip, error=one_line(error))
        except (ValueError, OSError) as error:
            outcome = Outcome.of(clip, error=one_line(error))
        outcome.seconds = round(time.monotonic() - started, 3)
        outcome.worker = self._name
        return outcome

    def _segment(self, clip: Clip, started: float) -> Outcome:
        from entitysam.bulk.manifest import place_of
        from entitysam.bulk.preview import WatchedFrames
        from entitysam.bulk.sources import fetched
        from entitysam.bulk.tables import ENTITIES, PREVIEWS, VideoTable, video_file
        from entitysam.io.readers.source import open_frames

        settings, file = self._settings, video_file(self._out, clip.id)
        reading = {"stride": settings.stride, "max_frames": settings.max_frames, "start": clip.start, "end": clip.end}
        with fetched(clip.path) as path, ExitStack() as stack:
            source = stack.enter_context(open_frames(path, **reading))  # type: ignore[arg-type]
            if source.is_live:
                raise ValueError(f"{clip.path}: a live stream has no end")
            frames = WatchedFrames(source, self._on_frames, place_of(clip))
            maps, scores = self._maps(frames, (source.height, source.width))
            first = next(maps)
            writer = None
            if settings.masks or settings.overlays:
                writer = stack.enter_context(self._open_folder(clip, file.stem, source))
            again: Iterator[Any] = repeat(None)
            if settings.overlays:
                again = iter(stack.enter_context(open_frames(path, **reading)))  # type: ignore[arg-type]
            table = stack.enter_context(VideoTable(file, clip.id))
            for index, (ids, frame_scores) in enumerate(chain([first], maps)):
                name, seconds = source.name(index), source.time(index)
                table.add(name, ids, frame_scores, seconds)
                if writer is not None:
                    writer.add(name, next(again), ids, frame_scores, seconds)
                frames.keep_ids(index, ids)
            if writer is not None:
                writer.finish(scores())
            frames.write_preview(self._out / PREVIEWS / f"{file.stem}.jpg")
            outcome = Outcome.of(
                clip,
                status=DONE,
                file=f"{ENTITIES}/{file.name}",
                frames=table.num_frames,
                entities=table.num_entities,
                width=source.width,
                height=source.height,
                fps=source.fps,
                warnings="\n".join(source.warnings),
                seconds=round(time.monotonic() - started, 3),
                worker=self._name,
            )
            table.finish(scores(), {**asdict(outcome), "stride": settings.stride, "max_frames": settings.max_frames})
        return outcome

    def _maps(
        self, frames: "WatchedFrames", size: tuple[int, int]
    ) -> tuple[Iterator[tuple["np.ndarray", dict[int, float]]], Callable[[], dict[int, float]]]:
        """The id maps with the scores of the frame, and the scores over the video, which are complete after the maps."""
        if self._settings.window:
            from entitysam.inference.windows.video import WindowedVideo

            windows = WindowedVideo([self._segmenter], frames, self._settings.window)
            return ((found.ids, found.scores) for found in windows), lambda: windows.scores
        video = self._segmenter.segment(frames, size)
        columns = video.frame_scores.T.tolist()  # [T][n]
        maps = ((ids, dict(enumerate(column, start=1))) for ids, column in zip(video.iter_ids(), columns, strict=True))
        return maps, lambda: dict(enumerate(video.scores.tolist(), start=1))

    def _open_folder(self, clip: Clip, stem: str, source: "FrameSource") -> "ResultWriter":
        from entitysam.bulk.tables import FOLDERS
        from entitysam.io.result_folder import origin_of, remove_results
        from entitysam.io.writers.segments import ResultWriter

        folder = self._out / FOLDERS / stem
        if folder.exists():
            remove_results(folder)
        origin = origin_of(clip.path, self._settings.stride, self._settings.max_frames)
        section = {key: value for key, value in (("start", clip.start), ("end", clip.end)) if value is not None}
        size = source.width, source.height
        return ResultWriter(folder, clip.id, *size, source.fps, origin | section, drawn=self._settings.overlays)


def one_line(error: BaseException) -> str:
    """The message of an error, or its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
