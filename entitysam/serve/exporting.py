"""Takes an edited result away: the overlay video, id maps, or the whole result folder as a zip file."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from entitysam.exchange import FORMATS, export_result
from entitysam.io.files import whole_file
from entitysam.io.readers.base import InputError
from entitysam.io.writers.annotations import EntityNames
from entitysam.io.writers.segments import ResultWriter
from entitysam.io.writers.video import VideoWriter
from entitysam.serve.boxes import write_boxes
from entitysam.serve.opened import OpenedResult, Snapshot
from entitysam.visualization.overlay import draw_entities

OnFrame = Callable[[], Any]
KINDS = {"overlay": "overlay.mp4", "result": "result.zip", "maps": "maps.zip"}


def file_name(kind: str) -> str:
    """Name of the file of an export: of `KINDS`, or a format of `exchange.FORMATS`, a folder of which becomes a zip file.

    Raises:
        InputError: there is no such export.
    """
    if kind in KINDS:
        return KINDS[kind]
    if kind in FORMATS:
        return f"{kind}{FORMATS[kind].suffix or '.zip'}"
    raise InputError("there is no such export")


def export(state: Snapshot, kind: str, folder: Path, on_frame: OnFrame) -> Path:
    """Writes an edited result to a folder.

    Args:
        state: the result; its edits are applied.
        kind: "overlay" (mp4), "maps" (a zip file of id PNGs), "result" (a zip file of the whole result folder), or a
            format of `exchange.FORMATS`.
        folder: an empty folder.
        on_frame: called after every frame; may raise to stop.

    Returns:
        the file.

    Raises:
        OutputError: the disk is full.
    """
    name = file_name(kind)
    if kind == "overlay":
        return write_overlay(state, folder / name, on_frame)
    result = folder / "result"
    if state.opened.boxes is None:
        write_result(state, result, on_frame)
    elif kind == "maps":
        raise InputError("this result has boxes and no id maps")
    else:
        write_boxes(state.opened.boxes.edited(state.edits, state.table), result)
    if kind in KINDS:
        return _zip(result / "masks" if kind == "maps" else result, folder / name)
    if FORMATS[kind].suffix:
        return export_result(result, kind, folder / name)
    return _zip(export_result(result, kind, folder / "converted"), folder / name)


def write_overlay(state: Snapshot, path: Path, on_frame: OnFrame) -> Path:
    """The video with its entities drawn, in their colours and with their names."""
    opened, rows = state.opened, state.table.rows
    height, width = opened.shape
    names = {entity: row.name for entity, row in rows.items() if row.name}
    colours = {entity: row.colour for entity, row in rows.items() if row.colour}
    rgb = {entity: tuple(bytes.fromhex(colour[1:])) for entity, colour in colours.items()}
    with VideoWriter(path, width, height, opened.saved.fps) as video:
        for index, time in enumerate(opened.times):
            ids = state.ids(index)
            video.add(draw_entities(_frame(opened, index), ids, names=names, colours=rgb), time)
            on_frame()
    return path


def write_result(state: Snapshot, folder: Path, on_frame: OnFrame) -> Path:
    """A result folder, as `entitysam segment` writes it, with the edits applied."""
    opened, saved, table = state.opened, state.opened.saved, state.table
    height, width = opened.shape
    scores = {entity: _mean(row.scores) for entity, row in table.rows.items()}
    named = {entity: row.name for entity, row in table.rows.items() if row.name and row.areas.any()}
    names = _entity_names(named) if named else None
    with ResultWriter(folder, saved.video_id, width, height, saved.fps, saved.source, names) as writer:
        for index, name in enumerate(saved.frames):
            ids = state.ids(index)
            frame_scores = {entity: float(row.scores[index]) for entity, row in table.rows.items()}
            writer.add(name, _frame(opened, index), ids, frame_scores, saved.times[index])
            on_frame()
        writer.finish(scores)
    return folder


def _frame(opened: OpenedResult, index: int) -> np.ndarray:
    """A frame, black where the result has none."""
    try:
        return opened.frame(index)
    except InputError:
        return np.zeros((*opened.shape, 3), np.uint8)


def _mean(scores: np.ndarray) -> float:
    seen = scores[scores > 0]
    return float(seen.mean()) if len(seen) else 0.0


def _entity_names(named: dict[int, str]) -> EntityNames:
    """Names as categories, in the order of their first use."""
    listed = list(dict.fromkeys(named.values()))
    categories = [{"id": number, "name": name, "isthing": 1} for number, name in enumerate(listed, start=1)]
    category_of = {entity: 1 + listed.index(name) for entity, name in named.items()}
    return EntityNames(categories, category_of, dict.fromkeys(named, 1.0))


def _zip(folder: Path, path: Path) -> Path:
    with whole_file(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder))
    return path
