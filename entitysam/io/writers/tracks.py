"""The result folder of one tracked video.

| file | content |
| --- | --- |
| `overlay.mp4` | the frames with their tracks drawn |
| `tracks.json` | per track: first and last frame, score, category, box (and area and run-length mask) on every frame |
| `tracks.txt` | MOT Challenge: frame (from 1), id, x, y, width, height, score, -1, -1, -1 |
| `events.json` | when tracks are born, lost and back |
| `contact_sheet.png` | a few frames, original above overlay |

and where objects have masks, the maps that `segment` writes; masks of tracks may overlap, the smallest one is on top:

| file | content |
| --- | --- |
| `masks/<frame>.png` | track ids, RGB, id = R + 256 G + 65536 B |
| `segments.json` | panoptic video annotations: which ids are on which frame |
"""

import json
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from entitysam.inference.online import Event
from entitysam.io.files import make_folder, whole_file
from entitysam.io.id_maps import write_ids
from entitysam.io.writers.annotations import SegmentsWriter, TracksWriter, describe_entities, listed_masks, unfinished
from entitysam.io.writers.segments import MASKS, OVERLAY, SEGMENTS, SHEET, TRACKS, WrittenResult
from entitysam.io.writers.video import VideoWriter
from entitysam.ops import rle_area
from entitysam.structures import Detections
from entitysam.visualization.contact_sheet import ContactSheet
from entitysam.visualization.tracks import draw_tracks, paint

MOT, EVENTS = "tracks.txt", "events.json"


class TrackWriter:
    """Fills a result folder frame by frame; used in a `with` block that ends with `finish`. Every file is whole or absent.

    Args:
        folder: created where it is not there; results of an earlier run are replaced.
        video_id: the video's name in the results.
        width, height: of the frames in pixels.
        fps: of the overlay; None where the input has no rate.

    Raises:
        OutputError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, video_id: str, width: int, height: int, fps: float | None) -> None:
        self.folder = make_folder(folder)
        self._video_id = video_id
        self._sheet = ContactSheet()
        self._tracks = TracksWriter(video_id, width, height, fps)
        self._overlay = VideoWriter(folder / OVERLAY, width, height, fps)
        self._maps = MapWriter(folder, video_id)
        self._lines = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - closed by `__exit__`
        self._events: list[dict[str, Any]] = []
        self._scores: dict[int, list[float]] = {}  # id -> [sum, count]
        self._num_frames = 0

    def add(self, name: str, frame: np.ndarray, ids: np.ndarray, objects: Detections, events: Sequence[Event]) -> None:
        """Appends one frame: its name, uint8 [H, W, 3] RGB, and the ids int [N], objects and events on it."""
        entries = describe_tracks(ids, objects)
        scores = dict(zip(ids.tolist(), objects.scores.tolist()))
        self._tracks.add(name, entries, scores)
        for entry in entries:
            number, score = entry["id"], scores[entry["id"]]
            box = ",".join(f"{value:g}" for value in entry["bbox"])
            self._lines.write(f"{self._num_frames + 1},{number},{box},{score:g},-1,-1,-1\n")
            total = self._scores.setdefault(number, [0.0, 0.0])
            total[0] += score
            total[1] += 1
        self._events += [{"frame": self._num_frames, "kind": event.kind, "id": event.id} for event in events]
        self._maps.add(name, frame.shape[:2], ids, objects)
        drawn = draw_tracks(frame, ids, objects)
        self._overlay.add(drawn)
        self._sheet.add(name, frame, drawn)
        self._num_frames += 1

    def finish(self) -> WrittenResult:
        """Writes the files that need the whole video."""
        self._overlay.close()
        self._tracks.write(self.folder / TRACKS, {number: total / n for number, (total, n) in self._scores.items()})
        self._lines.seek(0)
        with whole_file(self.folder / MOT) as temporary, temporary.open("w", encoding="utf-8") as file:
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
        self._lines.close()


class MapWriter:
    """`masks/` and `segments.json` of tracks with masks; neither is there for tracks that are boxes alone.

    Maps wait in a hidden folder, so that those of an earlier run are there until `finish`.

    Args:
        folder: of the results.
        video_id: the video's name in `segments.json`.
    """

    def __init__(self, folder: Path, video_id: str) -> None:
        self._folder, self._video_id = folder, video_id
        self._earlier = listed_masks(folder / SEGMENTS)
        self._hidden = folder / f".{MASKS}.part"
        self._segments: SegmentsWriter | None = None
        self._waiting: list[tuple[str, tuple[int, ...]]] = []  # name and size of the frames before the first mask

    def add(self, name: str, size: tuple[int, ...], ids: np.ndarray, objects: Detections) -> None:
        """Appends one frame: its name and size (H, W), and the ids int [N] and objects on it."""
        has_mask = np.array([mask is not None for mask in objects.masks], bool)
        if self._segments is None and not has_mask.any():
            self._waiting.append((name, size))
            return
        if self._segments is None:
            shutil.rmtree(self._hidden, ignore_errors=True)  # of a run that was killed
            make_folder(self._hidden)
            self._segments = SegmentsWriter(self._folder / SEGMENTS, self._video_id)
            for before, its_size in self._waiting:
                self._write(self._segments, before, np.zeros(its_size, np.int32))
        self._write(self._segments, name, paint(size, ids[has_mask], objects[has_mask]))

    def _write(self, segments: SegmentsWriter, name: str, painted: np.ndarray) -> None:
        write_ids(self._hidden / f"{name}.png", painted)
        segments.add(f"{name}.png", describe_entities(painted))

    def finish(self) -> None:
        """Puts the maps in the place of an earlier run's."""
        masks = self._folder / MASKS
        for name in self._earlier:
            (masks / Path(name).name).unlink(missing_ok=True)
        (self._folder / SEGMENTS).unlink(missing_ok=True)
        if self._segments is None:
            with suppress(OSError):  # not there, or with files of others
                masks.rmdir()
            return
        make_folder(masks)
        for path in self._hidden.iterdir():
            path.replace(masks / path.name)
        self._hidden.rmdir()
        self._segments.write()
        self._segments = None

    def close(self) -> None:
        """Without `finish` nothing is left of the maps."""
        if self._segments is not None:
            self._segments.close()
            unfinished(self._folder / SEGMENTS).unlink(missing_ok=True)
            shutil.rmtree(self._hidden, ignore_errors=True)


def describe_tracks(ids: np.ndarray, objects: Detections) -> list[dict[str, Any]]:
    """The objects [N] of a frame by ascending id: id, category_id, bbox [x, y, width, height] and, of masks, area and code."""
    entries = []
    for row in np.argsort(ids, kind="stable"):
        x1, y1, x2, y2 = objects.boxes[row].tolist()
        entry = {"id": int(ids[row]), "category_id": int(objects.categories[row]), "bbox": [x1, y1, x2 - x1, y2 - y1]}
        mask = objects.masks[row]
        entries.append(entry if mask is None else {**entry, "area": rle_area(mask), "segmentation": mask})
    return entries
