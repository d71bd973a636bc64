"""Results as JSON Lines on standard output, and nothing else."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType

import numpy as np

from entitysam.io.files import output_errors
from entitysam.io.writers.annotations import unnamed_line
from entitysam.io.writers.segments import WrittenResult
from entitysam.structures import Event


class StdoutWriter:
    """Writes the lines of `frame_lines` to standard output as the frames come; used as a `ResultWriter`.

    Raises:
        OutputError: the reader has closed the pipe.
    """

    def __init__(self) -> None:
        # A file of its own: the interpreter does not try to write what is left at its end.
        self._file = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
        self._num_frames = 0
        self._ids: set[int] = set()

    def add(
        self,
        name: str,
        frame: np.ndarray,
        ids: np.ndarray,
        frame_scores: Mapping[int, float],
        time: float | None = None,
        events: Sequence[Event] | None = None,
    ) -> None:
        """Writes a line; arguments as for `ResultWriter.add`."""
        line = unnamed_line(self._num_frames, name, ids, frame_scores, time, events)
        with output_errors("stdout"):
            self._file.write(json.dumps(line).encode() + b"\n")
            self._file.flush()
        self._num_frames += 1
        self._ids.update(info["id"] for info in line["segments_info"])

    def finish(self, scores: Mapping[int, float] | None = None) -> WrittenResult:
        """What was written."""
        return WrittenResult(self._num_frames, len(self._ids), [])

    def __enter__(self) -> "StdoutWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(OSError):  # a closed pipe
            self._file.close()
