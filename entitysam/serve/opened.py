"""One open result: its maps and frames as edited, and the edits."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np

from entitysam.edits.journal import Journal
from entitysam.edits.maps import edit_map, relabel, relabelled_only
from entitysam.edits.operations import Edit, EditError, Masks, Paint, describe
from entitysam.edits.table import EntityTable, painted_frames
from entitysam.engine.labelling.saved_result import SavedResult, has_only_boxes
from entitysam.io.id_maps import read_ids
from entitysam.io.readers.random_access import RandomAccess
from entitysam.io.readers.source import InputError, open_frames
from entitysam.io.result_folder import CLIP, MASKS
from entitysam.serve.boxes import Boxes
from entitysam.serve.packing import ByteCache, Runs, encode_jpeg, pack_frames, pack_lanes, pack_maps
from entitysam.visualization.overlay import id_colours

JOURNAL = "edits.jsonl"
MAP_BYTES, FRAME_BYTES = 128 * 2**20, 128 * 2**20
MAX_BATCH = 64  # frames in one answer
DEFAULT_FPS = 10.0


class StaleError(ValueError):
    """An edit that was made on an older state than the current one."""


class OpenedResult:
    """A result folder, opened for looking and editing. For several threads.

    The state after edits is a table of entities (areas and scores per frame) that every edit changes, and maps that are
    edited when they are asked for.

    Args:
        folder: of a finished run.
        source: keyword arguments of `open_frames`; None = the input that the result names.
        journal: of the edits; by default `edits.jsonl` in the folder.

    Attributes:
        saved: the result as it is on disk.
        boxes: of a result without masks; None = it has masks.
        problem: why there are no frames, "" where there are.

    Raises:
        InputError: the folder has no result that can be read.
        JournalError: the edits cannot be read.
    """

    def __init__(self, folder: Path, source: dict[str, Any] | None = None, journal: Path | None = None):
        self.folder = folder
        self.saved = SavedResult.read(folder, boxes=True)
        self.boxes = Boxes(folder) if has_only_boxes(folder) else None
        if self.boxes is not None:
            self.boxes.fill_areas(self.saved.areas)
        self.num_frames = len(self.saved.frames)
        self.shape = self.saved.height, self.saved.width
        self._maps, self._jpegs = ByteCache(MAP_BYTES), ByteCache(FRAME_BYTES)
        self._lock, self._frame_lock = RLock(), RLock()
        self._frames: RandomAccess | None = None
        self._source = source
        self.problem = ""
        self._counts: list[dict[int, dict[int, int]]] = []  # per edit in force: frame -> areas on it
        self._base = self._base_table()
        self.table = self._base.copy()
        self.journal = Journal(journal or folder / JOURNAL, result_identity(self.saved))
        self._rebuild()

    def _base_table(self) -> EntityTable:
        saved, table = self.saved, EntityTable(self.num_frames)
        for index, entity in enumerate(saved.ids.tolist()):
            row = table.row(entity)
            row.scores[:] = saved.frame_scores[index]
            seen = saved.frame_scores[index] > 0
            row.areas[:] = np.where(saved.areas[index] > 0, saved.areas[index], seen)
            row.name = saved.names[index][:200]
        return table

    # -- state

    @property
    def revision(self) -> int:
        return self.journal.revision

    @property
    def times(self) -> list[float]:
        """Seconds of each frame from the first."""
        times = [time for time in self.saved.times if time is not None]
        if len(times) == self.num_frames:
            return times
        return [index / (self.saved.fps or DEFAULT_FPS) for index in range(self.num_frames)]

    def describe(self) -> dict[str, Any]:
        """What does not change: size, times and names of frames."""
        return {
            "title": self.saved.video_id,
            "width": self.saved.width,
            "height": self.saved.height,
            "frames": self.num_frames,
            "times": [round(time, 4) for time in self.times],
            "names": self.saved.frames,
            "boxes": self.boxes is not None,
        }

    def state(self) -> dict[str, Any]:
        """What edits change: entities, and the list of edits."""
        with self._lock:
            entities = [self._entity(entity) for entity in self.table.visible]
            names = {entity: row.name for entity, row in self.table.rows.items()}
            journal = self.journal
            done = [describe(edit, lambda entity: _shown(entity, names)) for edit in journal.edits]
            undone = [describe(edit, lambda entity: _shown(entity, names)) for edit in journal.undone]
            aside = journal.set_aside.name if journal.set_aside else ""
            return {"revision": journal.revision, "entities": entities, "done": done, "undone": undone,
                    "problem": self.problem, "set_aside": aside, "next_id": self.table.largest + 1}  # fmt: skip

    def _entity(self, entity: int) -> dict[str, Any]:
        row = self.table.rows[entity]
        seen = np.flatnonzero(row.areas)
        return {
            "id": entity,
            "name": row.name,
            "colour": row.colour or hex_colour(entity),
            "locked": row.locked,
            "first": int(seen[0]),
            "last": int(seen[-1]),
            "count": len(seen),
            "area": int(row.areas[seen].mean()),
            "score": round(float(row.scores[seen].mean()), 3),
        }

    def lanes(self) -> bytes:
        """See `packing`; the entities of `state`, in its order."""
        with self._lock:
            rows = [self.table.rows[entity] for entity in self.table.visible]
            return pack_lanes([row.scores for row in rows], [row.areas for row in rows])

    # -- edits

    def edit(self, edit: Edit, revision: int | None = None) -> None:
        """Makes an edit.

        Args:
            edit: it.
            revision: of the state that the edit was made for; None = any.

        Raises:
            StaleError: the state has changed since then.
            EditError: the edit cannot be made.
            OutputError: the journal cannot be written.
        """
        with self._lock:
            self._check_revision(revision)
            if isinstance(edit, Paint | Masks):
                self.check_masks()
            self.table.check(edit)
            counts = self._count(edit, [*self.journal.edits, edit])
            self.journal.do(edit)
            self._apply(edit, counts)

    def edit_all(self, edits: Sequence[Edit], revision: int) -> None:
        """Makes edits one after the other, without those of others between them; raises as `edit`, which leaves those
        before.
        """
        with self._lock:
            self._check_revision(revision)
            for edit in edits:
                self.edit(edit)

    def undo(self, revision: int | None = None) -> None:
        """Takes back the last edit; raises as `edit`."""
        with self._lock:
            self._check_revision(revision)
            self.journal.undo()
            self._rebuild(self._counts[: len(self.journal.edits)])

    def redo(self, revision: int | None = None) -> None:
        """Makes the edit again that was undone last; raises as `edit`."""
        with self._lock:
            self._check_revision(revision)
            edit = self.journal.redo()
            self._apply(edit, self._count(edit, self.journal.edits))

    def check_masks(self) -> None:
        """Refuses what paints.

        Raises:
            EditError: the result has boxes, not masks.
        """
        if self.boxes is not None:
            raise EditError("this result has boxes, which cannot be painted")

    def _check_revision(self, revision: int | None) -> None:
        if revision is not None and revision != self.revision:
            raise StaleError("the result was edited in another tab; it is up to date now, please try again")

    def _count(self, edit: Edit, edits: list[Edit]) -> dict[int, dict[int, int]]:
        """Areas on the frames that an edit paints, after it."""
        return {frame: self._edited(frame, edits).areas() for frame in painted_frames(edit)}

    def _apply(self, edit: Edit, counts: dict[int, dict[int, int]]) -> None:
        self.table.apply(edit)
        for frame, areas in counts.items():
            self.table.set_areas(frame, areas)
        self._counts.append(counts)

    def _rebuild(self, known: list[dict[int, dict[int, int]]] | None = None) -> None:
        """The table after all edits in force; `known` are the counts of the first of them."""
        edits, known = self.journal.edits, known or []
        self.table, self._counts = self._base.copy(), []
        for index, edit in enumerate(edits):
            counts = known[index] if index < len(known) else self._count(edit, edits[: index + 1])
            self._apply(edit, counts)

    # -- maps

    def snapshot(self) -> "Snapshot":
        """The state now, which later edits do not change."""
        with self._lock:
            return Snapshot(self, list(self.journal.edits), self.revision, self.table.copy())

    def ids(self, frame: int) -> np.ndarray:
        """The edited map of a frame, int32 [H, W]."""
        return self.snapshot_ids(frame, *self._edits())

    def snapshot_ids(self, frame: int, edits: list[Edit], revision: int) -> np.ndarray:
        return self._edited(frame, edits, revision).expand(self.shape)

    def _edits(self) -> tuple[list[Edit], int]:
        with self._lock:
            return list(self.journal.edits), self.revision

    def packed_maps(self, start: int, count: int) -> bytes:
        """Edited maps of frames start..start + count - 1, see `packing`."""
        edits, revision = self._edits()
        return pack_maps(self._edited(frame, edits, revision) for frame in self._range(start, count))

    def _edited(self, frame: int, edits: list[Edit], revision: int | None = None) -> Runs:
        """The map after edits; a map that was painted is kept for its revision, where one is given."""
        if self.boxes is not None:
            return Runs.of(self.boxes.id_map(frame, edits))
        key = frame, revision
        painted = None if revision is None else self._maps.get(key)
        if painted is not None:
            return painted
        runs = self._original(frame)
        mapping = relabelled_only(frame, edits)
        if mapping is not None:
            return Runs(relabel(runs.ids, mapping), runs.lengths)
        painted = Runs.of(edit_map(runs.expand(self.shape), frame, edits))
        if revision is not None:
            self._maps.put(key, painted, painted.nbytes)
        return painted

    def _original(self, frame: int) -> Runs:
        runs = self._maps.get(frame)
        if runs is None:
            path = self.folder / MASKS / f"{self.saved.frames[frame]}.png"
            try:
                ids = read_ids(path)
            except (OSError, SyntaxError, ValueError) as error:
                raise InputError(f"{path.name}: cannot be read ({error})") from error
            if ids.shape != self.shape:
                raise InputError(f"{path.name}: has another size than the frames")
            runs = Runs.of(ids)
            self._maps.put(frame, runs, runs.nbytes)
        return runs

    def _range(self, start: int, count: int) -> range:
        return range(start, min(start + min(count, MAX_BATCH), self.num_frames))

    # -- frames

    def packed_frames(self, start: int, count: int) -> bytes:
        """Frames as JPEG, see `packing`.

        Raises:
            InputError: there are none.
        """
        with self._frame_lock:  # for all of them: ranges that are asked for together are decoded one after the other
            return pack_frames([self._jpeg(frame) for frame in self._range(start, count)])

    def _jpeg(self, index: int) -> bytes:
        data = self._jpegs.get(index)
        if data is None:
            data = encode_jpeg(self.frame(index))
            self._jpegs.put(index, data, len(data))
        return data

    def frame(self, index: int) -> np.ndarray:
        """A frame of the input, uint8 [H, W, 3] RGB.

        Raises:
            InputError: the input is not there or cannot be decoded.
        """
        with self._frame_lock:
            if self._frames is None:
                if self.problem:
                    raise InputError(self.problem)
                try:
                    self._frames = self._open_frames()
                except InputError as error:
                    self.problem = str(error)
                    raise
            return self._frames[index]

    @property
    def source(self) -> dict[str, Any]:
        """Keyword arguments of `open_frames` for the frames.

        Raises:
            InputError: they are not there.
        """
        return self._source or self._recorded_source()

    def _open_frames(self) -> RandomAccess:
        source = open_frames(**self.source)
        try:
            self.saved.check_frames(source)
        except InputError:
            source.close()
            raise
        return RandomAccess(source, self.saved.times)

    def _recorded_source(self) -> dict[str, Any]:
        """What the result names; in a folder that has moved, the clip in it."""
        clip = self.folder / CLIP
        try:
            return self.saved.local_source()
        except InputError:
            if CLIP in self.saved.files and clip.is_file() and not clip.is_symlink():
                return {"source": str(clip)}
            raise

    def close(self) -> None:
        with self._frame_lock:
            if self._frames is not None:
                self._frames.close()
                self._frames = None


@dataclass(frozen=True)
class Snapshot:
    """A result at one revision: what exports and the review list read while others edit.

    Attributes:
        opened: the result.
        edits, revision, table: see `OpenedResult`.
    """

    opened: OpenedResult
    edits: list[Edit]
    revision: int
    table: EntityTable

    def ids(self, frame: int) -> np.ndarray:
        """The edited map of a frame, int32 [H, W]."""
        return self.opened.snapshot_ids(frame, self.edits, self.revision)


def result_identity(saved: SavedResult) -> str:
    """Hash of the frames and of the entities on them: a new run over the same input has another one; names do not matter."""
    digest = hashlib.sha256(repr((saved.frames, saved.width, saved.height, saved.ids.tolist())).encode())
    digest.update(saved.areas.tobytes())
    return digest.hexdigest()[:32]


def hex_colour(entity: int) -> str:
    return "#" + "".join(f"{value:02x}" for value in id_colours(entity).tolist())


def _shown(entity: int, names: dict[int, str]) -> str:
    name = names.get(entity)
    return f"{name} ({entity})" if name else f"entity {entity}"
