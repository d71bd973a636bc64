"""The result folder of one segmented video.

| file | content |
| --- | --- |
| `overlay.mp4` | the frames with their entities drawn, with the timing of the input |
| `masks/<frame>.png` | entity ids, RGB, id = R + 256 G + 65536 B |
| `segments.json` | panoptic video annotations: time and ids of every frame |
| `segments.jsonl` | a line per frame, written as the frames come (see `frame_lines`) |
| `tracks.json` | per entity: first and last frame, score, name (where given), box, area and run-length mask on every frame |
| `contact_sheet.png` | a few frames, original above overlay |
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from entitysam.io.files import make_folder, whole_file
from entitysam.io.id_maps import write_ids
from entitysam.io.paths import join_inside
from entitysam.io.result_folder import MASKS, OVERLAY, SEGMENT_FILES, SEGMENTS, SHEET, TRACKS
from entitysam.io.writers.annotations import EntityNames, SegmentsWriter, TracksWriter, describe_entities
from entitysam.io.writers.video import VideoWriter
from entitysam.structures import Event
from entitysam.visualization.contact_sheet import ContactSheet
from entitysam.visualization.overlay import draw_entities


@dataclass
class WrittenResult:
    """What a finished result folder holds: number of frames, number of entities, and warnings to show."""

    num_frames: int
    num_entities: int
    warnings: list[str]


class ResultWriter:
    """Fills a result folder frame by frame; used in a `with` block that ends with `finish`.

    Every file is complete or absent, but for `segments.jsonl`. Without `finish` (an error, Ctrl-C) the masks written so far
    stay, with their lines.

    Args:
        folder: created if missing; see `result_folder.remove_results` for one with an earlier result.
        video_id: the video's name in the JSON files and on the contact sheet.
        width, height: of the frames in pixels.
        fps: of the overlay; None where the input has no rate.
        source: what opens the frames again, as plain data for `tracks.json`; None where nothing does.
        names: classes of the entities, drawn and written.
        other_files: names of further files that the same run writes into the folder.
        finished: frames that an interrupted run has written, whose lines stay; they are added again.
        drawn: write the files that show the frames, `overlay.mp4` and `contact_sheet.png`.

    Raises:
        OutputError: the folder cannot be written to.
    """

    def __init__(
        self,
        folder: Path,
        video_id: str,
        width: int,
        height: int,
        fps: float | None,
        source: Mapping[str, Any] | None = None,
        names: EntityNames | None = None,
        other_files: Sequence[str] = (),
        finished: int = 0,
        drawn: bool = True,
    ) -> None:
        self.folder = folder
        shown = () if drawn else (OVERLAY, SHEET)
        self._files = dict.fromkeys([*(name for name in SEGMENT_FILES if name not in shown), *other_files])
        self._video_id = video_id
        self._masks = make_folder(folder / MASKS)
        self._sheet = ContactSheet()
        self._names = names.names if names else {}
        self._segments = SegmentsWriter(folder / SEGMENTS, video_id, names, finished=finished)
        for file_name in self._segments.dropped:
            join_inside(self._masks, file_name, folder.name).unlink(missing_ok=True)
        self._tracks = TracksWriter(video_id, width, height, fps, source, names)
        self._overlay = VideoWriter(folder / OVERLAY, width, height, fps) if drawn else None
        self._num_frames = 0

    def add(
        self,
        name: str,
        frame: np.ndarray | None,
        ids: np.ndarray,
        frame_scores: Mapping[int, float],
        time: float | None = None,
        events: Sequence[Event] | None = None,
    ) -> None:
        """Appends one frame.

        Args:
            name: of the frame, the stem of its mask.
            frame: uint8 [H, W, 3] RGB; None where nothing is drawn.
            ids: int [H, W]; 0 = no entity.
            frame_scores: score on this frame, 0..1, of (at least) the ids in `ids`.
            time: seconds from the first frame; None where the input has no times.
            events: of this frame, where the run is online.
        """
        file_name = f"{name}.png"
        path = join_inside(self._masks, file_name, "frame")
        entities = describe_entities(ids)
        self._segments.add(
            file_name, entities, time, frame_scores, events
        )  # before the mask, so that every mask is listed
        write_ids(path, ids)
        self._tracks.add(name, entities, dict(frame_scores), time)
        if self._overlay is not None and frame is not None:
            drawn = draw_entities(frame, ids, names=self._names)
            self._overlay.add(drawn, time)
            self._sheet.add(name, frame, drawn)
        self._num_frames += 1

    def finish(self, scores: Mapping[int, float]) -> WrittenResult:
        """Writes the files that need the whole video.

        Args:
            scores: score over the video, 0..1, of (at least) every id that was seen.
        """
        num_entities = len(self._tracks.entities)
        # First, because it lists the other files: after an interruption the next run knows whose they are.
        self._tracks.write(self.folder / TRACKS, dict(scores), list(self._files))
        if self._overlay is not None:
            self._overlay.close()
            title = f"{self._video_id} · {self._num_frames} frames · {num_entities} entities"
            with whole_file(self.folder / SHEET) as temporary:
                self._sheet.draw(title).save(temporary, format="PNG")
        self._segments.write()
        warnings = [self._overlay.warning] if self._overlay and self._overlay.warning else []
        return WrittenResult(self._num_frames, num_entities, warnings)

    def __enter__(self) -> "ResultWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._overlay is not None:
            self._overlay.discard()
        self._segments.close()
        self._tracks.close()
