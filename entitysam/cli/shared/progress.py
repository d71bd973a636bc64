"""Progress bars and messages of the commands; everything but results goes to stderr."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class FrameBar:
    """A progress bar over the frames of a video: count, frames per second, time left."""

    def __init__(self, progress: Progress, title: str, total: int | None) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=total)

    def step(self, *_: object) -> None:
        """One more frame is done; takes and ignores what callbacks are given."""
        self._progress.advance(self._task)

    def advance(self, count: int) -> None:
        """So many more are done."""
        self._progress.advance(self._task, count)

    def finish(self) -> None:
        """The number of frames was an estimate: now it is known."""
        done = int(self._progress.tasks[self._task].completed)
        self._progress.update(self._task, total=done)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.2f} frames/s" if speed else "", style="progress.data.speed")


@contextmanager
def frame_bar(title: str, total: int | None, quiet: bool = False) -> Iterator[FrameBar]:
    """A bar on stderr while the block runs; `quiet` shows nothing."""
    columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), _Rate(), TextColumn("left"))
    console = Console(stderr=True, quiet=quiet)
    with Progress(*columns, TimeRemainingColumn(), console=console, speed_estimate_period=60) as progress:
        bar = FrameBar(progress, title, total)
        yield bar
        bar.finish()


def warn(message: str) -> None:
    """One line of warning on stderr, shown even when quiet."""
    print(f"entitysam: warning: {message}", file=sys.stderr)


def note(message: str, quiet: bool = False) -> None:
    """One line on stderr for the user's information."""
    if not quiet:
        print(message, file=sys.stderr)
