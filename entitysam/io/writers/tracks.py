"""The result folder of one tracked video.

| file | content |
| --- | --- |
| `overlay.mp4` | the frames with their tracks drawn, with the timing of the input |
| `tracks.json` | per track: first and last frame, score, category, box (and area and run-length mask) on every frame |
| `tracks.txt` | MOT Challenge: frame (from 1), id, x, y, width, height, score, -1, -1, -1 |
| `events.json` | frames on which tracks are born, lost and found again |
| `contact_sheet.png` | a few frames, original above overlay |

and, where objects have masks, the id maps that `segment` writes; where masks overlap, the smallest one is on top:

| file | content |
| --- | --- |
| `masks/<frame>.png` | track ids, RGB, id = R + 256 G + 65536 B |
| `segments.json` | panoptic video annotations: time and ids of every frame |
"""

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from entitysam.io.files import make_folder, output_errors, whole_file
from entitysam.io.id_maps import write_ids
from entitysam.io.paths import join_inside
from entitysam.io.result_folder import (
    EVENTS,
    MASKS,
    MOT,
    OVERLAY,
    SEGMENTS,
    SHEET,
    TRACK_FILES,
    TRACKS,
    read_earlier,
    unfinished,
)
from entitysam.io.writers.annotations import SegmentsWriter, TracksWriter, describe_entities
from entitysam.io.writers.segments import WrittenResult
from entitysam.io.writers.video import VideoWriter
from entitysam.ops import rle_area
from entitysam.structures import Detections, Event
from entitysam.visualization.contact_sheet import ContactSheet
from entitysam.visualization.tracks import draw_tracks, masks_to_ids


class TrackWriter:
    """Fills a result folder frame by frame; used in a `with` block that ends with `finish`.

    Every file is complete or absent. The files of an earlier run stay until `finish`, which removes or replaces them.

    Args:
        folder: created if missing.
        video_id: the video's name in the results.
        width, height: of the frames in pixels.
        fps: of the overlay; None where the input has no rate.
        source: what opens the frames again, as plain data for `tracks.json`; None where nothing does.

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
    ) -> None:
        self.folder = make_folder(folder)
        self._video_id = video_id
        self._earlier = [path for path in read_earlier(folder).files if not path.name.startswith(".")]
        self._sheet = ContactSheet()
        self._tracks = TracksWriter(video_id, width, height, fps, source)
        self._overlay = VideoWriter(folder / OVERLAY, width, height, fps)
        self._maps = MapWriter(folder, video_id)
        self._lines = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - closed by `__exit__`
        self._events: list[dict[str, Any]] = []
        self._scores: dict[int, list[float]] = {}  # id -> [sum, count]
        self._num_frames = 0

    def add(
        self,
        name: str,
        frame: np.ndarray,
        ids: np.ndarray,
        objects: Detections,
        events: Sequence[Event],
        time: float | None = None,
    ) -> None:
        """Appends one frame.

        Args:
            name: of the frame.
            frame: uint8 [H, W, 3] RGB.
            ids: int [N] track ids of the objects.
            objects: the N objects on the frame.
            events: of this frame.
            time: seconds from the first frame; None where the input has no times.
        """
        entries = describe_tracks(ids, objects)
        scores = dict(zip(ids.tolist(), objects.scores.tolist()))
        self._tracks.add(name, entries, scores, time)
        with output_errors(f"{tempfile.gettempdir()} (temporary folder)"):
            for entry in entries:
                number, score = entry["id"], scores[entry["id"]]
                box = ",".join(f"{value:g}" for value in entry["bbox"])
                self._lines.write(f"{self._num_frames + 1},{number},{box},{score:g},-1,-1,-1\n")
                total = self._scores.setdefault(number, [0.0, 0.0])
                total[0] += score
                total[1] += 1
        self._events += [{"frame": self._num_frames, "kind": event.kind, "id": event.id} for event in events]
        self._maps.add(name, frame.shape[:2], ids, objects, time)
        drawn = draw_tracks(frame, ids, objects)
        self._overlay.add(drawn, time)
        self._sheet.add(name, frame, drawn)
        self._num_frames += 1

    def finish(self) -> WrittenResult:
        """Removes the files of an earlier run and writes those of this one."""
        for path in self._earlier:
            path.unlink(missing_ok=True)
        files = [name for name in TRACK_FILES if name != SEGMENTS or self._maps.has_masks]
        scores = {number: total / n for number, (total, n) in self._scores.items()}
        # First, because it lists the other files: after an interruption the next run knows whose they are.
        self._tracks.write(self.folder / TRACKS, scores, files)
        self._overlay.close()
        with whole_file(self.folder / MOT) as temporary, temporary.open("w", encoding="utf-8") as file:
            self._lines.seek(0)
            shutil.copyfileobj(self._lines, file)
        with whole_file(self.folder / EVENTS) as temporary:
            temporary.write_text(json.dumps({"events": self._events}, indent=1), encoding="utf-8")
        self._maps.finish()
        title = f"{self._video_id} · {self._num_frames} frames · {len(self._scores)} tracks"
        with whole_file(self.folder / SHEET) as temporary:
            self._sheet.draw(title).save(temporary, format="PNG")
        warnings = [self._overlay.warning] if self._overlay.warning else []
        return WrittenResult(self._num_frames, len(self._scores), warnings)

    def __enter__(self) -> "TrackWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._overlay.discard()
        self._tracks.close()
        self._maps.close()
        with suppress(OSError):  # on a full disk what is buffered cannot be written
            self._lines.close()


class MapWriter:
    """Writes `masks/` and `segments.json` of tracks with masks, and nothing for tracks without.

    Maps are collected in a hidden folder, so that those of an earlier run stay until `finish`.

    Args:
        folder: of the results.
        video_id: the video's name in `segments.json`.
    """

    def __init__(self, folder: Path, video_id: str) -> None:
        self._folder, self._video_id = folder, video_id
        self._hidden = folder / f".{MASKS}.part"
        self._segments: SegmentsWriter | None = None
        self._interrupted = unfinished(folder / SEGMENTS).is_file()
        self._waiting: list[tuple[str, tuple[int, ...], float | None]] = []  # the frames before the first mask

    @property
    def has_masks(self) -> bool:
        """Whether a frame with masks was added."""
        return self._segments is not None

    def add(
        self, name: str, size: tuple[int, ...], ids: np.ndarray, objects: Detections, time: float | None = None
    ) -> None:
        """Appends one frame.

        Args:
            name: of the frame.
            size: (H, W) of the frame.
            ids: int [N] track ids of the objects.
            objects: the N objects on the frame.
            time: seconds from the first frame, where known.
        """
        has_mask = np.array([mask is not None for mask in objects.masks], bool)
        if self._segments is None and not has_mask.any():
            self._waiting.append((name, size, time))
            return
        if self._segments is None:
            self._segments = self._start()
        self._write(self._segments, name, masks_to_ids(size, ids[has_mask], objects[has_mask]), time)

    def _start(self) -> SegmentsWriter:
        if self._hidden.is_symlink():
            self._hidden.unlink()
        shutil.rmtree(self._hidden, ignore_errors=True)  # of a run that was killed
        make_folder(self._hidden)
        segments = SegmentsWriter(self._folder / SEGMENTS, self._video_id, hidden=True)
        for name, size, time in self._waiting:
            self._write(segments, name, np.zeros(size, np.int32), time)
        return segments

    def _write(self, segments: SegmentsWriter, name: str, id_map: np.ndarray, time: float | None) -> None:
        path = join_inside(self._hidden, f"{name}.png", "frame")
        segments.add(path.name, describe_entities(id_map), time)
        write_ids(path, id_map)

    def finish(self) -> None:
        """Moves the maps to `masks/` and writes `segments.json`; the files of an earlier run have been removed."""
        masks = self._folder / MASKS
        if self._segments is None:
            unfinished(self._folder / SEGMENTS).unlink(missing_ok=True)  # its masks have been removed
            with suppress(OSError):  # missing, or with files of others
                masks.rmdir()
            return
        make_folder(masks)
        with output_errors(masks):
            for path in self._hidden.iterdir():
                path.replace(masks / path.name)
            self._hidden.rmdir()
        self._segments.write()
        self._segments = None

    def close(self) -> None:
        """Without `finish`, removes everything that was written; the partial list of an earlier run stays."""
        if self._segments is not None:
            self._segments.close()
            if not self._interrupted:
                unfinished(self._folder / SEGMENTS).unlink(missing_ok=True)
            shutil.rmtree(self._hidden, ignore_errors=True)


def describe_tracks(ids: np.ndarray, objects: Detections) -> list[dict[str, Any]]:
    """The objects of a frame sorted by id: id, category_id, bbox [x, y, width, height]; with a mask, area and run-length code.

    Args:
        ids: int [N].
        objects: N objects, boxes xyxy in pixels.
    """
    entries = []
    for row in np.argsort(ids, kind="stable"):
        x1, y1, x2, y2 = objects.boxes[row].tolist()
        entry = {"id": int(ids[row]), "category_id": int(objects.categories[row]), "bbox": [x1, y1, x2 - x1, y2 - y1]}
        mask = objects.masks[row]
        entries.append(entry if mask is None else {**entry, "area": rle_area(mask), "segmentation": mask})
    return entries
