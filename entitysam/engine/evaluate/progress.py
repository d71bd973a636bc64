"""The progress of an evaluation: records of finished videos on disk, the share of each process, the bar."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from entitysam.io.files import as_stem, make_folder, whole_file
from entitysam.registry import ConfigError

FOLDER, IDENTITY = "records", "run.json"


class Records:
    """`OUT/records/<video>.json`: what a finished video left, so that --resume can skip it.

    Args:
        folder: of the evaluation.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER

    def start(self, identity: Mapping[str, Any], resume: bool) -> None:
        """Begins a run, or continues one. To be called by one process.

        Args:
            identity: everything that decides the predictions, as plain data.
            resume: keep the records that are there.

        Raises:
            ConfigError: the run to be resumed was another one; the message says what differs.
        """
        make_folder(self.folder)
        path = self.folder.parent / IDENTITY
        identity = json.loads(json.dumps(identity))
        if resume and path.is_file():
            before = json.loads(path.read_text(encoding="utf-8"))
            changed = [key for key in {**before, **identity} if before.get(key) != identity.get(key)]
            if changed:
                raise ConfigError(
                    f"{self.folder.parent}: the run to resume had another {changed[0]}; "
                    "start without --resume, or choose another output_dir"
                )
            return
        for record in self.folder.glob("*.json"):
            record.unlink()
        with whole_file(path) as temporary:
            temporary.write_text(json.dumps(identity, indent=1), encoding="utf-8")

    def read(self, video_id: Any) -> dict[str, Any] | None:
        """The record of a finished video, or None."""
        path = self._path(video_id)
        return json.loads(path.read_bytes()) if path.is_file() else None

    def write(self, video_id: Any, record: Mapping[str, Any]) -> None:
        with whole_file(self._path(video_id)) as temporary:
            temporary.write_text(json.dumps(record), encoding="utf-8")

    def _path(self, video_id: Any) -> Path:
        return self.folder / f"{as_stem(str(video_id))}.json"


def share(lengths: Sequence[int], processes: int) -> list[list[int]]:
    """Shares videos by their length: longest first, each to the process that has least so far.

    Returns:
        the positions of each process's videos, longest first.
    """
    load = [0] * processes
    shares: list[list[int]] = [[] for _ in range(processes)]
    for position in sorted(range(len(lengths)), key=lambda p: (-lengths[p], p)):
        least = load.index(min(load))
        load[least] += lengths[position]
        shares[least].append(position)
    return shares


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.2f} videos/s" if speed else "", style="progress.data.speed")


@contextmanager
def video_bar(title: str, total: int, quiet: bool) -> Iterator[Progress]:
    """A bar over videos on stderr with videos/s and the time left; its task is number 0."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TextColumn("left"))
    console = Console(stderr=True, quiet=quiet)
    with Progress(*columns, TimeRemainingColumn(), console=console, speed_estimate_period=600) as progress:
        progress.add_task(title, total=total)
        yield progress
