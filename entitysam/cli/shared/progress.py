"""Progress bars and messages of the commands, all on stderr."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class FrameBar:
    """A progress bar over the frames of a video: count, frames per second, time left."""

    def __init__(self, progress: Progress, title: str, total: int | None) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=total)

    def step(self, *_: object) -> None:
        """Advances by one frame; ignores the arguments that callbacks are given."""
        self._progress.advance(self._task)

    def advance(self, count: int) -> None:
        """Advances by `count` frames."""
        self._progress.advance(self._task, count)

    def finish(self) -> None:
        """Sets the total, which was an estimate, to the number of frames done."""
        done = int(self._progress.tasks[self._task].completed)
        self._progress.update(self._task, total=done)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.2f} frames/s" if speed else "", style="progress.data.speed")


@contextmanager
def frame_bar(title: str, total: int | None, quiet: bool = False) -> Iterator[FrameBar]:
    """Shows a bar on stderr while the block runs, unless `quiet`."""
    columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), _Rate(), TextColumn("left"))
    console = Console(stderr=True, quiet=quiet)
    with Progress(*columns, TimeRemainingColumn(), console=console, speed_estimate_period=60) as progress:
        bar = FrameBar(progress, title, total)
        yield bar
        bar.finish()


def warn(message: str) -> None:
    """Prints a warning on stderr, also when quiet."""
    print(f"entitysam: warning: {message}", file=sys.stderr)


def note(message: str, quiet: bool = False) -> None:
    """Prints a message on stderr, unless `quiet`."""
    if not quiet:
        print(message, file=sys.stderr)


class JobProgress(Protocol):
    """Where a job over many videos stands; `bulk.job.Progress` is one."""

    total: int
    skipped: int
    done: int
    failed: int

    @property
    def frames_per_second(self) -> float: ...
    @property
    def seconds_left(self) -> float | None: ...


@contextmanager
def job_line(quiet: bool = False) -> Iterator[Callable[[JobProgress], None]]:
    """Shows videos, frames per second over all workers, failures and time left on stderr while the block runs."""
    columns = (TextColumn("videos"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True, quiet=quiet)) as shown:
        task = shown.add_task("", total=None)

        def show(progress: JobProgress) -> None:
            left = progress.seconds_left
            parts = [f"{progress.frames_per_second:.2f} frames/s", f"{progress.failed} failed"]
            parts += [] if left is None else [f"{timedelta(seconds=round(left))} left"]
            finished = progress.skipped + progress.done + progress.failed
            shown.update(task, total=progress.total, completed=finished, description=", ".join(parts))

        yield show
