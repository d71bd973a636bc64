"""`segments.jsonl`: one line of JSON per frame, which can be read while the run goes on.

| key | content |
| --- | --- |
| `frame` | number of the frame in this run, from 0 |
| `file_name` | of its id map in `masks/`, which is written right after the line |
| `time` | seconds from the first frame; absent where the input has no times |
| `segments_info` | per entity: `id`, `bbox` [x, y, width, height], `area` in pixels, `category_id`, `iscrowd` 0, `score` 0..1, and the COCO run-length code `segmentation` |
| `events` | online: [{`kind`: born, lost, back or recycled, `id`}] of this frame |

A line ends with a line feed; text after the last line feed is a line that is being written.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from entitysam.errors import ConfigError
from entitysam.io.files import create_file, output_errors
from entitysam.io.result_folder import unfinished


def frame_line(
    index: int,
    file_name: str,
    time: float | None,
    infos: Sequence[Mapping[str, Any]],
    events: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """The content of a line; see above."""
    line: dict[str, Any] = {"frame": index, "file_name": file_name}
    if time is not None:
        line["time"] = round(time, 6)
    line["segments_info"] = list(infos)
    return line if events is None else {**line, "events": list(events)}


class FrameLines:
    """Appends lines to `segments.jsonl`; each is flushed, so that a reader sees it at once.

    The file appears with its first line complete. Until then, and to the end where it is `hidden`, its name is
    `result_folder.unfinished(path)`.

    Args:
        path: of `segments.json`; the lines stand beside it.
        finished: lines of an interrupted run that stay. A line that was cut off and those after it are removed.
        hidden: the file appears only at `show`.

    Attributes:
        count: number of lines.
        dropped: names of the id maps of the removed lines.

    Raises:
        OutputError: the file cannot be written; ConfigError: fewer than `finished` lines are there.
    """

    def __init__(self, path: Path, finished: int = 0, hidden: bool = False) -> None:
        self._path, self._lines, self._part = path, path.with_name(f"{path.name}l"), unfinished(path)
        self._hidden = hidden
        self.count, self.dropped = 0, list[str]()
        flags = os.O_RDWR | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
        with output_errors(path):
            self._is_shown = finished > 0 or (not hidden and self._lines.is_file())
            if not self._is_shown:
                create_file(self._part)
            self._file = os.fdopen(os.open(self._lines if self._is_shown else self._part, flags), "a+b")
            self._keep(finished)

    def _keep(self, finished: int) -> None:
        """Cuts the file after `finished` lines."""
        self._file.seek(0)
        end = 0
        for line in self._file:
            if not line.endswith(b"\n"):
                break
            if self.count < finished:
                self.count, end = self.count + 1, end + len(line)
            else:
                with suppress(ValueError, KeyError, RecursionError):
                    self.dropped.append(str(json.loads(line)["file_name"]))
        if self.count < finished:
            self._file.close()
            raise ConfigError(f"{self._lines}: has {self.count} of {finished} finished frames; start without --resume")
        self._file.truncate(end)

    def add(self, line: Mapping[str, Any]) -> None:
        """Appends a line."""
        with output_errors(self._path):
            self._file.write(json.dumps(line).encode() + b"\n")
            self._file.flush()
            self.count += 1
            if not self._hidden:
                self.show()

    def forget(self, count: int) -> None:
        """Removes the first `count` lines; the file is replaced in one step."""
        if not count:
            return
        with output_errors(self._path):
            create_file(self._part)
            self._file.seek(0)
            for _ in range(count):
                self._file.readline()
            with self._part.open("wb") as file:
                shutil.copyfileobj(self._file, file)
            self._file.close()
            os.replace(self._part, self._lines)
            self._file = self._lines.open("a+b")
        self.count -= count

    def show(self) -> None:
        """Gives the file its name."""
        if not self._is_shown:
            with output_errors(self._lines):
                os.replace(self._part, self._lines)
            self._is_shown = True

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The lines from the first one on; nothing can be added while they are read."""
        self._file.seek(0)
        return (json.loads(line) for line in self._file)

    def close(self) -> None:
        """Closes the file, which stays."""
        with suppress(OSError):  # on a full disk what is buffered cannot be written
            self._file.close()


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The complete lines of a `segments.jsonl`; none where there is no such file."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield json.loads(line)
