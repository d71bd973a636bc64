"""Progress of an evaluation: the videos of each process, and the progress bar."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


def share(lengths: Sequence[int], processes: int) -> list[list[int]]:
    """Distributes videos by length: longest first, each to the process with the fewest frames so far.

    Returns:
        the indices of each process's videos, longest first.
    """
    load = [0] * processes
    shares: list[list[int]] = [[] for _ in range(processes)]
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        least = load.index(min(load))
        load[least] += lengths[index]
        shares[least].append(index)
    return shares


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.2f} videos/s" if speed else "", style="progress.data.speed")


@contextmanager
def video_bar(title: str, total: int, quiet: bool) -> Iterator[Progress]:
    """A progress bar on stderr with videos/s and the remaining time; its task has index 0."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TextColumn("left"))
    console = Console(stderr=True, quiet=quiet)
    with Progress(*columns, TimeRemainingColumn(), console=console, speed_estimate_period=600) as progress:
        progress.add_task(title, total=total)
        yield progress
