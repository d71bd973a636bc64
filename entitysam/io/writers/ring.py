"""A result folder that holds the last seconds of an endless input, in constant space."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from PIL import Image

from entitysam.io.files import OutputError, make_folder
from entitysam.io.id_maps import read_ids, write_ids
from entitysam.io.paths import join_inside
from entitysam.io.result_folder import MASKS, SEGMENTS
from entitysam.io.writers.annotations import unnamed_line
from entitysam.io.writers.frame_lines import FrameLines
from entitysam.io.writers.segments import ResultWriter, WrittenResult
from entitysam.structures import Event

JPEG_QUALITY = 95  # of the frames, which are kept for the overlay


class RingWriter:
    """Keeps the maps and lines of the last seconds in the result folder; used as a `ResultWriter`.

    The frames are kept as JPEGs beside them, until `finish` writes all other files of the result. `segments.jsonl` has
    at most twice as many lines.

    Args:
        folder: of the result.
        frames: folder for the frames; the caller removes it.
        seconds: how much is kept.
        open_writer: `open_writer(finished=n)` opens the `ResultWriter` of the folder.
    """

    def __init__(self, folder: Path, frames: Path, seconds: float, open_writer: Callable[..., ResultWriter]) -> None:
        self._masks, self._frames = make_folder(folder / MASKS), make_folder(frames)
        self._seconds, self._open_writer = seconds, open_writer
        self._lines = FrameLines(folder / SEGMENTS)
        self._kept: deque[tuple[str, float]] = deque()  # name and time of the frames
        self._num_frames = self._old_lines = 0

    def add(
        self,
        name: str,
        frame: np.ndarray,
        ids: np.ndarray,
        frame_scores: Mapping[int, float],
        time: float | None = None,
        events: Sequence[Event] | None = None,
    ) -> None:
        """Appends a frame and removes those that are too old; arguments as for `ResultWriter.add`."""
        self._lines.add(unnamed_line(self._num_frames, name, ids, frame_scores, time, events))
        write_ids(join_inside(self._masks, f"{name}.png", "frame"), ids)
        path = join_inside(self._frames, f"{name}.jpg", "frame")
        if not cv2.imwrite(str(path), frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]):
            raise OutputError(f"{path}: cannot be written")
        self._num_frames += 1
        self._kept.append((name, time or 0.0))
        while self._kept[0][1] < self._kept[-1][1] - self._seconds:
            old, _ = self._kept.popleft()
            (self._masks / f"{old}.png").unlink(missing_ok=True)
            (self._frames / f"{old}.jpg").unlink(missing_ok=True)
            self._old_lines += 1
        if self._old_lines > len(self._kept):
            self._forget()

    def _forget(self) -> None:
        self._lines.forget(self._old_lines)
        self._old_lines = 0

    def finish(self, scores: Mapping[int, float] | None = None) -> WrittenResult:
        """Writes the result of the frames that are kept."""
        self._forget()
        lines = list(self._lines)
        self._lines.close()
        with self._open_writer(finished=len(lines)) as writer:
            last: dict[int, float] = {}
            for (name, time), line in zip(self._kept, lines, strict=True):
                frame = np.asarray(Image.open(self._frames / f"{name}.jpg"))
                frame_scores = {info["id"]: info["score"] for info in line["segments_info"]}
                writer.add(name, frame, read_ids(self._masks / f"{name}.png"), frame_scores, time)
                last |= frame_scores
            return writer.finish(last)

    def __enter__(self) -> "RingWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lines.close()
