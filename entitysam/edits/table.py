"""The entities of a result over time: on which frames each is seen, how large, with which score."""

from collections.abc import Iterable

import numpy as np

from entitysam.edits.operations import (
    Delete,
    Edit,
    EditError,
    Join,
    Lock,
    Masks,
    Merge,
    Paint,
    Recolour,
    Rename,
    Split,
    Swap,
)


class Row:
    """One entity.

    Attributes:
        areas: int32 [T] pixels; 0 = not visible.
        scores: float32 [T] in 0..1; 0 where it is not visible.
        name, colour: "" where there is none.
        locked: its pixels are protected.
    """

    def __init__(self, num_frames: int):
        self.areas = np.zeros(num_frames, np.int32)
        self.scores = np.zeros(num_frames, np.float32)
        self.name = ""
        self.colour = ""
        self.locked = False

    def copy(self) -> "Row":
        row = Row(0)
        row.areas, row.scores = self.areas.copy(), self.scores.copy()
        row.name, row.colour, row.locked = self.name, self.colour, self.locked
        return row


class EntityTable:
    """Rows by id. Edits change it in the order in which they are made.

    Args:
        num_frames: T.
    """

    def __init__(self, num_frames: int):
        self.num_frames = num_frames
        self.rows: dict[int, Row] = {}
        self.largest = 0  # id ever used

    def row(self, entity: int) -> Row:
        """The row of an id; a new one where there is none."""
        self.largest = max(self.largest, entity)
        return self.rows.setdefault(entity, Row(self.num_frames))

    def copy(self) -> "EntityTable":
        table = EntityTable(self.num_frames)
        table.rows = {entity: row.copy() for entity, row in self.rows.items()}
        table.largest = self.largest
        return table

    @property
    def visible(self) -> list[int]:
        """Ids that are seen on some frame, ascending."""
        return sorted(entity for entity, row in self.rows.items() if row.areas.any())

    def locked(self) -> set[int]:
        return {entity for entity, row in self.rows.items() if row.locked}

    def check(self, edit: Edit) -> None:
        """Refuses an edit that cannot be made now.

        Raises:
            EditError: an entity or frame that does not exist, a locked entity, entities that meet on a frame, ...
        """
        for entity in involved(edit):
            if entity not in self.rows or not (self.rows[entity].areas.any() or isinstance(edit, Paint | Masks)):
                if isinstance(edit, Paint | Masks):
                    continue  # a new entity may be painted
                raise EditError(f"there is no entity {entity}")
            if self.rows[entity].locked and not isinstance(edit, Rename | Recolour | Lock):
                raise EditError(f"entity {entity} is locked")
        if isinstance(edit, Merge | Join | Swap):
            other = edit.into if isinstance(edit, Merge) else edit.other
            if edit.id == other:
                raise EditError("an entity cannot be combined with itself")
        if isinstance(edit, Join):
            both = np.flatnonzero((self.rows[edit.id].areas > 0) & (self.rows[edit.other].areas > 0))
            if len(both):
                raise EditError(f"both entities are on frame {both[0]}; merge them instead")
        if isinstance(edit, Split):
            self._check_split(edit)
        if isinstance(edit, Delete):
            self._check_frame(edit.last)
            if edit.last < edit.first:
                raise EditError(f"the range ends on frame {edit.last}, before its first frame {edit.first}")
        if isinstance(edit, Swap | Paint | Split):
            self._check_frame(edit.frame)
        if isinstance(edit, Masks):
            for frame in edit.masks:
                if not frame.isdecimal():
                    raise EditError(f"{frame!r} is no frame")
                self._check_frame(int(frame))

    def _check_split(self, edit: Split) -> None:
        if edit.new in self.rows:
            raise EditError(f"entity {edit.new} exists already")
        areas = self.rows[edit.id].areas
        if not areas[: edit.frame].any() or not areas[edit.frame :].any():
            raise EditError(f"entity {edit.id} is not on both sides of frame {edit.frame}")

    def _check_frame(self, frame: int) -> None:
        if frame >= self.num_frames:
            raise EditError(f"there is no frame {frame}; the last one is {self.num_frames - 1}")

    def apply(self, edit: Edit) -> None:
        """Makes an edit. What strokes and new masks do to areas is told to `set_areas` afterwards."""
        if isinstance(edit, Rename):
            self.row(edit.id).name = edit.name
        elif isinstance(edit, Recolour):
            self.row(edit.id).colour = edit.colour
        elif isinstance(edit, Lock):
            self.row(edit.id).locked = edit.locked
        elif isinstance(edit, Swap):
            first, second = self.row(edit.id), self.row(edit.other)
            for a, b in ((first.areas, second.areas), (first.scores, second.scores)):
                a[edit.frame :], b[edit.frame :] = b[edit.frame :].copy(), a[edit.frame :].copy()
        elif isinstance(edit, Delete):
            row = self.row(edit.id)
            row.areas[edit.first : edit.last + 1] = 0
            row.scores[edit.first : edit.last + 1] = 0
        elif isinstance(edit, Merge | Join | Split):
            self._move(*_moves(edit))
        else:
            self.row(edit.id)

    def _move(self, source: int, target: int, start: int) -> None:
        old, new = self.row(source), self.row(target)
        new.areas[start:] += old.areas[start:]
        np.maximum(new.scores[start:], old.scores[start:], out=new.scores[start:])
        old.areas[start:] = 0
        old.scores[start:] = 0
        if not start and not new.name:
            new.name = old.name

    def set_areas(self, frame: int, areas: dict[int, int]) -> None:
        """The areas on a frame, counted on its edited map; entities that are new there get the score 1: a person saw them."""
        for entity in areas:
            self.row(entity)
        for entity, row in self.rows.items():
            area = areas.get(entity, 0)
            row.scores[frame] = 0 if not area else row.scores[frame] or 1.0
            row.areas[frame] = area


def _moves(edit: Merge | Join | Split) -> tuple[int, int, int]:
    """(from, to, first frame) of an edit that gives all pixels of one id to another."""
    if isinstance(edit, Merge):
        return edit.id, edit.into, 0
    if isinstance(edit, Join):
        return edit.other, edit.id, 0
    return edit.id, edit.new, edit.frame


def relabelling(edit: Edit, frame: int) -> dict[int, int]:
    """What an edit does to the ids of a map: old -> new; empty where it does nothing, or paints."""
    if isinstance(edit, Merge | Join | Split):
        source, target, start = _moves(edit)
        return {source: target} if frame >= start else {}
    if isinstance(edit, Swap):
        return {edit.id: edit.other, edit.other: edit.id} if frame >= edit.frame else {}
    if isinstance(edit, Delete):
        return {edit.id: 0} if edit.first <= frame <= edit.last else {}
    return {}


def involved(edit: Edit) -> Iterable[int]:
    """Ids of the entities that must exist for an edit."""
    if isinstance(edit, Merge):
        return edit.id, edit.into
    if isinstance(edit, Swap | Join):
        return edit.id, edit.other
    return (edit.id,)


def painted_frames(edit: Edit) -> list[int]:
    """Frames on which an edit changes pixels one by one."""
    if isinstance(edit, Paint):
        return [edit.frame]
    return [int(frame) for frame in edit.masks] if isinstance(edit, Masks) else []
