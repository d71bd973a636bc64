"""Results of `entitysam track` whose objects have boxes and no masks: shown as filled boxes, edited by id, exported as boxes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from entitysam.edits.maps import relabelled_only
from entitysam.edits.operations import Edit
from entitysam.edits.table import EntityTable
from entitysam.exchange.video import Entity, Instance, TrackedVideo, read_result, write_result
from entitysam.io.files import whole_file
from entitysam.io.result_folder import MOT


class Boxes:
    """The boxes of a result.

    Args:
        folder: of the result.

    Raises:
        InputError: it cannot be read.
    """

    def __init__(self, folder: Path):
        self.video = read_result(folder)
        self._found = self.video.by_frame()

    def fill_areas(self, areas: np.ndarray) -> None:
        """Writes the areas of the boxes, in whole pixels and at least 1, to int32 [n, T]; entities by ascending ids."""
        for row, entity in zip(areas, self.video.entities):
            for frame, instance in entity.instances.items():
                row[frame] = min(max(round(instance.area), 1), 2**31 - 1)

    def on_frame(self, frame: int, edits: Sequence[Edit]) -> dict[int, Instance]:
        """Boxes by id after edits, none of which paints; two that have one id then are the box around both."""
        mapping = relabelled_only(frame, edits) or {}
        boxes: dict[int, Instance] = {}
        for entity, instance in self._found[frame]:
            number = mapping.get(entity.id, entity.id)
            if number:
                boxes[number] = _around(instance, boxes[number]) if number in boxes else instance
        return boxes

    def id_map(self, frame: int, edits: Sequence[Edit]) -> np.ndarray:
        """int32 [H, W] after edits; where boxes overlap, the smallest is on top."""
        ids = np.zeros((self.video.height, self.video.width), np.int32)
        for number, instance in sorted(self.on_frame(frame, edits).items(), key=lambda item: -item[1].area):
            x, y, width, height = instance.box
            left, top = max(0, round(x)), max(0, round(y))
            ids[top : max(0, round(y + height)), left : max(0, round(x + width))] = number
        return ids

    def edited(self, edits: Sequence[Edit], table: EntityTable) -> TrackedVideo:
        """All boxes after edits, with the names of the table after them."""
        entities: dict[int, Entity] = {}
        for frame in range(len(self._found)):
            for number, instance in self.on_frame(frame, edits).items():
                entities.setdefault(number, Entity(number)).instances[frame] = instance
        for number, entity in entities.items():
            entity.name = table.rows[number].name or None
            entity.score = float(np.mean([instance.score for instance in entity.instances.values()]))
        return replace(self.video, entities=list(entities.values()))


def _around(one: Instance, other: Instance) -> Instance:
    left, top = (min(pair) for pair in zip(one.box[:2], other.box[:2]))
    right, bottom = (max(one.box[k] + one.box[k + 2], other.box[k] + other.box[k + 2]) for k in (0, 1))
    return Instance((left, top, right - left, bottom - top), max(one.score, other.score))


def write_boxes(video: TrackedVideo, folder: Path) -> None:
    """A result folder with `tracks.json` and `tracks.txt`.

    Raises:
        OutputError: the disk is full.
    """
    write_result(video, folder)
    with whole_file(folder / MOT) as temporary, temporary.open("w", encoding="utf-8") as file:
        for frame, found in enumerate(video.by_frame(), start=1):
            for entity, instance in found:
                box = ",".join(f"{value:g}" for value in instance.box)
                file.write(f"{frame},{entity.id},{box},{instance.score:g},-1,-1,-1\n")
