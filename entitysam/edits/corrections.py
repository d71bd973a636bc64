"""A video that was corrected in another program, as edits of the result that it was exported from.

Other programs number tracks anew, so entities are found by their masks. What differs becomes edits; every entity that a person has
changed is locked afterwards, so that later edits and re-propagation keep it.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from entitysam.edits.maps import decode_mask, encode_mask
from entitysam.edits.operations import MAX_NAME, Delete, Edit, EditError, Lock, Masks, Rename
from entitysam.edits.table import EntityTable

LEAST_IOU = 0.1  # of a track and an entity that share no frame to the pixel
CONTROL = dict.fromkeys([*range(32), 127], " ")  # characters that no name of an entity has


@dataclass
class Track:
    """An entity as the other program has it.

    Attributes:
        name: "" where it has none.
        masks: frame -> lengths of runs, as `maps.encode_mask` gives them.
    """

    name: str
    masks: dict[int, list[int]] = field(default_factory=dict)


@dataclass
class Corrections:
    """What a person has changed.

    Attributes:
        edits: in the order in which they are to be made.
        changed, new, deleted: ids of entities.
        refused: ids of locked entities that the person has changed; they have no edits.
    """

    edits: list[Edit] = field(default_factory=list)
    changed: list[int] = field(default_factory=list)
    new: list[int] = field(default_factory=list)
    deleted: list[int] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)

    @property
    def summary(self) -> str:
        """In words."""
        counts = [(self.changed, "changed"), (self.new, "new"), (self.deleted, "deleted")]
        parts = [f"{len(ids)} {what}" for ids, what in counts if ids]
        text = ", ".join(parts) if parts else "nothing differs"
        if self.refused:
            text += f"; left out, as they are locked: {', '.join(map(str, self.refused))}"
        return text


def find_corrections(
    tracks: Sequence[Track],
    table: EntityTable,
    shape: tuple[int, int],
    ids: Callable[[int], np.ndarray],
    on_frame: Callable[[], object] = lambda: None,
) -> Corrections:
    """Compares tracks with a result.

    Args:
        tracks: all entities of the corrected video; what is missing was deleted.
        table: of the result, with the edits in force.
        shape: H, W.
        ids: the map int [H, W] of a frame.
        on_frame: called after every frame; may raise to stop.

    Raises:
        EditError: a frame that the result does not have, or a mask of another size.
    """
    for track in tracks:
        if max(track.masks, default=0) >= table.num_frames:
            raise EditError(f"there is no frame {max(track.masks)}; the last one is {table.num_frames - 1}")
    entities = table.visible
    matched = _match(tracks, entities, table, shape, ids, on_frame)
    by_entity = {matched[index]: tracks[index] for index in range(len(tracks)) if index in matched}
    found, locked = Corrections(), table.locked()
    changes = {entity: dict[str, list[int]]() for entity in by_entity}
    for frame in range(table.num_frames):
        id_map = ids(frame)
        present = set(np.unique(id_map).tolist())
        for entity, track in by_entity.items():
            before = encode_mask(id_map == entity) if entity in present else [id_map.size]
            after = track.masks.get(frame, [id_map.size])
            if after != before:
                changes[entity][str(frame)] = after
        on_frame()
    painted: list[tuple[float, int, dict[str, list[int]]]] = []  # mean area, id, masks
    names: dict[int, str] = {}
    for entity in entities:
        given = by_entity.get(entity)
        name = "" if given is None else _clean(given.name)
        if given is not None and not changes[entity] and name == table.rows[entity].name:
            continue
        if entity in locked:
            found.refused.append(entity)
        elif given is None:
            found.edits.append(Delete(id=entity, first=0, last=table.num_frames - 1))
            found.deleted.append(entity)
        else:
            found.changed.append(entity)
            if name != table.rows[entity].name:
                names[entity] = name
            if changes[entity]:
                painted.append((_mean_area(changes[entity]), entity, changes[entity]))
    fresh = table.largest
    for index, track in enumerate(tracks):
        if index in matched or not track.masks:
            continue
        fresh += 1
        found.new.append(fresh)
        masks = {str(frame): runs for frame, runs in track.masks.items()}
        painted.append((_mean_area(masks), fresh, masks))
        if _clean(track.name):
            names[fresh] = _clean(track.name)
    # Where masks overlap, the smallest is on top, as in every conversion.
    for _, entity, masks in sorted(painted, key=lambda item: -item[0]):
        found.edits.append(Masks(id=entity, masks=masks))
    found.edits += [Rename(id=entity, name=name) for entity, name in names.items()]
    found.edits += [Lock(id=entity, locked=True) for entity in (*found.changed, *found.new)]
    return found


def _match(
    tracks: Sequence[Track],
    entities: Sequence[int],
    table: EntityTable,
    shape: tuple[int, int],
    ids: Callable[[int], np.ndarray],
    on_frame: Callable[[], object],
) -> dict[int, int]:
    """Index of a track -> entity: one to one, by the IoU over all frames and the share of frames that are equal."""
    overlap: dict[tuple[int, int], int] = defaultdict(int)
    equal: dict[tuple[int, int], int] = defaultdict(int)
    areas = [0] * len(tracks)
    for frame in range(table.num_frames):
        here = [index for index, track in enumerate(tracks) if frame in track.masks]
        id_map = ids(frame) if here else np.zeros(shape, int)
        totals = dict(zip(*(values.tolist() for values in np.unique(id_map, return_counts=True))))
        for index in here:
            inside = id_map[decode_mask(shape, tracks[index].masks[frame])]
            areas[index] += inside.size
            for entity, count in zip(*(values.tolist() for values in np.unique(inside, return_counts=True))):
                overlap[index, entity] += count
                equal[index, entity] += count == inside.size == totals[entity]
        on_frame()
    quality = np.zeros((len(tracks), len(entities)))
    accepted = np.zeros(quality.shape, bool)
    for row in range(len(tracks)):
        for column, entity in enumerate(entities):
            shared = overlap[row, entity]
            iou = shared / max(areas[row] + int(table.rows[entity].areas.sum()) - shared, 1)
            quality[row, column] = iou + equal[row, entity] / max(len(tracks[row].masks), 1)
            accepted[row, column] = iou >= LEAST_IOU or equal[row, entity] > 0
    rows, columns = linear_sum_assignment(np.where(accepted, quality, 0), maximize=True)
    return {int(row): entities[column] for row, column in zip(rows, columns) if accepted[row, column]}


def _mean_area(masks: dict[str, list[int]]) -> float:
    return sum(sum(runs[1::2]) for runs in masks.values()) / len(masks)


def _clean(name: str) -> str:
    return name.translate(CONTROL).strip()[:MAX_NAME]
