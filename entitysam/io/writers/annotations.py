"""`segments.json` (panoptic video annotations) and `tracks.json` (one record per entity), written frame by frame.

Both writers keep only a few bytes per entity and frame in memory. `segments.jsonl` is there as soon as a frame is written.
"""

import json
import os
import tempfile
from array import array
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from entitysam.io.files import output_errors, whole_file
from entitysam.io.result_folder import unfinished
from entitysam.io.writers.frame_lines import FrameLines, frame_line
from entitysam.ops import rle_encode
from entitysam.structures import Event

ENTITY_CATEGORY: dict[str, Any] = {
    "id": 1,
    "name": "entity",
    "isthing": 1,
}  # the single category of entities without a class


@dataclass(frozen=True)
class EntityNames:
    """Classes of the entities of a video.

    Attributes:
        categories: mappings with `id`, `name`, `isthing`, as JSON files list them.
        category_of: entity id -> category id, for every entity that has a class.
        confidence: entity id -> 0..1, for the same entities.
    """

    categories: Sequence[Mapping[str, Any]]
    category_of: Mapping[int, int]
    confidence: Mapping[int, float]

    @property
    def names(self) -> dict[int, str]:
        """Entity id -> name."""
        name_of = {category["id"]: category["name"] for category in self.categories}
        return {entity: name_of[category] for entity, category in self.category_of.items()}

    @property
    def unknown(self) -> dict[str, Any]:
        """The category of entities without a class, with the highest id."""
        return {"id": max((c["id"] for c in self.categories), default=0) + 1, "name": "unknown", "isthing": 1}


def describe_entities(ids: np.ndarray) -> list[dict[str, Any]]:
    """The entities of a map [H, W]: id, bbox [x, y, width, height], area in pixels, COCO run-length segmentation."""
    found = []
    for index, place in enumerate(ndimage.find_objects(ids)):
        if place is None:
            continue
        rows, columns = place
        mask = ids == index + 1
        box = [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start]
        area = int(np.count_nonzero(mask[place]))
        found.append({"id": index + 1, "bbox": box, "area": area, "segmentation": rle_encode(mask)})
    return found


class SegmentsWriter:
    """Panoptic video annotations: {categories, annotations: [{video_id, annotations: [{file_name, time, segments_info}]}]}.

    Until `write`, the frames stand in `FrameLines`, which name the masks that the run may have written.

    Args:
        path: of the final file.
        video_id: the video's name in the file.
        names: classes of the entities; None puts all entities into one category, "entity".
        hidden: no `segments.jsonl`: the lines are hidden, and removed by `write`.
        finished: frames of an interrupted run, whose lines stay (see `FrameLines`).

    Attributes:
        dropped: names of masks that an interrupted run has written and whose lines are removed.

    Raises:
        OutputError: the file cannot be written.
    """

    def __init__(
        self, path: Path, video_id: str, names: EntityNames | None = None, *, hidden: bool = False, finished: int = 0
    ) -> None:
        self._path = path
        self._video_id = video_id
        self._categories = [*names.categories, names.unknown] if names else [ENTITY_CATEGORY]
        self._category_of = names.category_of if names else {}
        self._hidden = hidden
        self._is_replaced = path.exists()  # a result that gets names: the old lines stay until `write`
        self._lines = FrameLines(path, finished, hidden or self._is_replaced)
        self._num_frames = 0
        self.dropped = self._lines.dropped

    def add(
        self,
        file_name: str,
        entities: list[dict[str, Any]],
        time: float | None = None,
        scores: Mapping[int, float] | None = None,
        events: Sequence[Event] | None = None,
    ) -> None:
        """Appends a frame; the first `finished` ones are there already.

        Args:
            file_name: of its id PNG.
            entities: what `describe_entities` found on it.
            time: seconds from the first frame, where known.
            scores: score of each id on this frame.
            events: of this frame.
        """
        self._num_frames += 1
        if self._num_frames > self._lines.count:
            infos = describe_segments(entities, scores, self._category_of, self._categories[-1]["id"])
            self._lines.add(frame_line(self._num_frames - 1, file_name, time, infos, plain_events(events)))

    def write(self) -> None:
        """Writes the file; no frames can be added afterwards."""
        kept = ("id", "bbox", "area", "category_id", "iscrowd")
        with whole_file(self._path) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.write(f'{{"categories": {json.dumps(self._categories)},\n')
            file.write(f'"annotations": [{{"video_id": {json.dumps(self._video_id)}, "annotations": [')
            for position, line in enumerate(self._lines):
                frame = {key: line[key] for key in ("file_name", "time") if key in line}
                infos = [{key: info[key] for key in kept} for info in line["segments_info"]]
                file.write((",\n" if position else "\n") + json.dumps({**frame, "segments_info": infos}))
            file.write("\n]}]}\n")
        if not self._hidden:
            self._lines.show()
        self.close()
        unfinished(self._path).unlink(missing_ok=True)

    def close(self) -> None:
        """Closes the lines, which stay."""
        self._lines.close()


def describe_segments(
    entities: list[dict[str, Any]],
    scores: Mapping[int, float] | None,
    category_of: Mapping[int, int],
    other_category: int,
) -> list[dict[str, Any]]:
    """The `segments_info` of a line, of what `describe_entities` found."""
    infos = []
    for entity in entities:
        number = entity["id"]
        info = {key: entity[key] for key in ("id", "bbox", "area")}
        info |= {"category_id": category_of.get(number, other_category), "iscrowd": 0}
        info |= {} if scores is None else {"score": round(scores[number], 6)}
        infos.append({**info, "segmentation": entity["segmentation"]})
    return infos


def unnamed_line(
    index: int,
    name: str,
    ids: np.ndarray,
    scores: Mapping[int, float],
    time: float | None,
    events: Sequence[Event] | None,
) -> dict[str, Any]:
    """The line of `segments.jsonl` of a frame whose entities have no classes.

    Args:
        index: of the frame in this run.
        name: of the frame; its id map is `<name>.png`.
        ids: int [H, W].
        scores: score of each id on this frame.
        time: seconds from the first frame, where known.
        events: of this frame.
    """
    infos = describe_segments(describe_entities(ids), scores, {}, ENTITY_CATEGORY["id"])
    return frame_line(index, f"{name}.png", time, infos, plain_events(events))


def plain_events(events: Sequence[Event] | None) -> list[dict[str, Any]] | None:
    """Events as plain data."""
    return None if events is None else [{"kind": event.kind, "id": event.id} for event in events]


class TracksWriter:
    """Per entity: id, score, first and last frame, and box, area, score and run-length mask on each of its frames.

    Frames arrive in order, the file is sorted by entity: records go to a temporary file, and only their offsets are
    kept in memory, 8 bytes each.

    Args:
        video_id: the video's name in the file.
        width, height: of the frames in pixels.
        fps: frames per second, None where the input has no rate.
        source: what opens the frames again, as plain data; None where nothing does.
        names: classes of the entities.
    """

    def __init__(
        self,
        video_id: str,
        width: int,
        height: int,
        fps: float | None,
        source: Mapping[str, Any] | None = None,
        names: EntityNames | None = None,
    ) -> None:
        self._head: dict[str, Any] = {"video_id": video_id, "width": width, "height": height, "fps": fps}
        if source is not None:
            self._head["source"] = dict(source)
        self._names = names
        self._frames: list[str] = []
        self._times: list[float | None] = []
        self._records = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._offsets: dict[int, array[int]] = {}
        self._range: dict[int, tuple[int, int]] = {}  # id -> first and last frame

    @property
    def entities(self) -> list[int]:
        """Ids seen so far, ascending."""
        return sorted(self._offsets)

    def add(
        self, name: str, entities: list[dict[str, Any]], scores: dict[int, float], time: float | None = None
    ) -> None:
        """Appends a frame.

        Args:
            name: of the frame.
            entities: what `describe_entities` found on it.
            scores: score of each id on this frame.
            time: seconds from the first frame, where known.

        Raises:
            OutputError: the temporary folder is full.
        """
        index = len(self._frames)
        self._frames.append(name)
        self._times.append(None if time is None else round(time, 6))
        with output_errors(f"{tempfile.gettempdir()} (temporary folder)"):
            for entity in entities:
                number = entity["id"]
                record = {"frame": index, "score": round(scores[number], 6), **entity}
                del record["id"]
                self._offsets.setdefault(number, array("Q")).append(self._records.seek(0, os.SEEK_END))
                self._records.write(json.dumps(record).encode() + b"\n")
                self._range[number] = (self._range.get(number, (index, index))[0], index)

    def write(self, path: Path, scores: dict[int, float], files: Sequence[str] = ()) -> None:
        """Writes the file. Everything in front of "tracks" is on the first line, see `result_folder.read_head`.

        Args:
            path: of the file.
            scores: score over the whole video, 0..1, of every id that was seen.
            files: names of all files of the result, which the next run into this folder may remove.
        """
        head = {**self._head, "files": list(files), "frames": self._frames}
        if None not in self._times:
            head["times"] = self._times
        with whole_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.write(json.dumps(head)[:-1] + ', "tracks": [')
            for position, number in enumerate(self.entities):
                first, last = self._range[number]
                track = {"id": number, "score": round(scores[number], 6), "first_frame": first, "last_frame": last}
                track |= self._class_of(number)
                file.write((",\n" if position else "\n") + json.dumps(track)[:-1] + ', "frames": [')
                for place, offset in enumerate(self._offsets[number]):
                    self._records.seek(offset)
                    file.write((",\n " if place else "\n ") + self._records.readline().decode().rstrip())
                file.write("]}")
            file.write("\n]}\n")

    def _class_of(self, number: int) -> dict[str, Any]:
        if self._names is None:
            return {}
        if number not in self._names.category_of:
            return {"name": None}
        confidence = round(self._names.confidence[number], 6)
        category = self._names.category_of[number]
        return {"name": self._names.names[number], "category_id": category, "confidence": confidence}

    def close(self) -> None:
        """Removes the temporary file."""
        with suppress(OSError):
            self._records.close()
