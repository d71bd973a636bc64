"""`segments.json` (panoptic video annotations) and `tracks.json` (one record per entity), written as frames come.

Neither holds more than a few bytes per entity and frame in memory.
"""

import json
import tempfile
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from entitysam.io.files import whole_file
from entitysam.ops import rle_encode

ENTITY_CATEGORY = {"id": 1, "name": "entity", "isthing": 1}  # entities carry no class: all are of one category


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
        """The category of entities without a class, behind all others."""
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
    """Panoptic video annotations: {categories, annotations: [{video_id, annotations: [{file_name, segments_info}]}]}.

    Args:
        path: of the file to write in the end. Until then one line per frame goes to `unfinished(path)`, which stays
            after an interruption and tells which masks were written.
        video_id: the video's name in the file.
        names: classes of the entities; without, all are of one category, "entity".
    """

    def __init__(self, path: Path, video_id: str, names: EntityNames | None = None) -> None:
        self._path = path
        self._video_id = video_id
        self._categories = [*names.categories, names.unknown] if names else [ENTITY_CATEGORY]
        self._category_of = names.category_of if names else {}
        self._lines = unfinished(path).open("w+", encoding="utf-8")

    def add(self, file_name: str, entities: list[dict[str, Any]]) -> None:
        """Appends a frame: the name of its id PNG and what `describe_entities` found on it."""
        kept = ("id", "bbox", "area")
        last = self._categories[-1]["id"]  # "entity", or "unknown"
        infos = [
            {**{k: e[k] for k in kept}, "category_id": self._category_of.get(e["id"], last), "iscrowd": 0}
            for e in entities
        ]
        self._lines.write(json.dumps({"file_name": file_name, "segments_info": infos}) + "\n")
        self._lines.flush()

    def write(self) -> None:
        """Writes the file; frames may not be added afterwards."""
        self._lines.seek(0)
        with whole_file(self._path) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.write(f'{{"categories": {json.dumps(self._categories)},\n')
            file.write(f'"annotations": [{{"video_id": {json.dumps(self._video_id)}, "annotations": [')
            for position, line in enumerate(self._lines):
                file.write((",\n" if position else "\n") + line.rstrip())
            file.write("\n]}]}\n")
        self.close()
        unfinished(self._path).unlink()

    def close(self) -> None:
        self._lines.close()


def unfinished(path: Path) -> Path:
    return path.with_name(f".{path.name}l.part")


def listed_masks(path: Path) -> list[str]:
    """File names of the masks that a `segments.json` lists, or, where the run did not finish, its unfinished lines.

    Empty where there is neither, or where the file is not one of ours.
    """
    try:
        if unfinished(path).is_file():
            lines = unfinished(path).read_text(encoding="utf-8").splitlines()
            return [json.loads(line)["file_name"] for line in lines]
        written = json.loads(path.read_text(encoding="utf-8"))
        return [frame["file_name"] for video in written["annotations"] for frame in video["annotations"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


class TracksWriter:
    """Per entity: id, score, first and last frame, and box, area, score and run-length mask on each of its frames.

    Frames arrive one after another and the file wants them entity by entity: records go to a temporary file, and only
    their places are kept, 8 bytes each.

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
        self._records = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._places: dict[int, array[int]] = {}
        self._range: dict[int, tuple[int, int]] = {}

    @property
    def entities(self) -> list[int]:
        """Ids seen so far, ascending."""
        return sorted(self._places)

    def add(self, name: str, entities: list[dict[str, Any]], scores: dict[int, float]) -> None:
        """Appends a frame: its name, what `describe_entities` found on it, and the score of each id on this frame."""
        index = len(self._frames)
        self._frames.append(name)
        for entity in entities:
            number = entity["id"]
            record = {"frame": index, "score": round(scores[number], 6), **entity}
            del record["id"]
            self._places.setdefault(number, array("Q")).append(self._records.seek(0, 2))
            self._records.write(json.dumps(record).encode() + b"\n")
            self._range[number] = (self._range.get(number, (index, index))[0], index)

    def write(self, path: Path, scores: dict[int, float]) -> None:
        """Writes the file.

        Args:
            path: of the file.
            scores: score over the whole video, 0..1, of every id that was seen.
        """
        with whole_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.write(json.dumps({**self._head, "frames": self._frames})[:-1] + ', "tracks": [')
            for position, number in enumerate(self.entities):
                first, last = self._range[number]
                track = {"id": number, "score": round(scores[number], 6), "first_frame": first, "last_frame": last}
                track |= self._class_of(number)
                file.write((",\n" if position else "\n") + json.dumps(track)[:-1] + ', "frames": [')
                for place, start in enumerate(self._places[number]):
                    self._records.seek(start)
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
        self._records.close()
