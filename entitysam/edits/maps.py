"""What edits do to the id map of a frame."""

from collections.abc import Sequence

import cv2
import numpy as np

from entitysam.edits.operations import Edit, EditError, Lock, Masks, Paint
from entitysam.edits.table import painted_frames, relabelling

SUBPIXEL = 4  # bits of a coordinate's fraction, as OpenCV draws


def edit_map(ids: np.ndarray, frame: int, edits: Sequence[Edit]) -> np.ndarray:
    """The map of a frame after edits, in their order.

    Args:
        ids: int [H, W] of the result; not changed.
        frame: its index.
        edits: those in force.

    Returns:
        int32 [H, W]; the argument itself where nothing changes.
    """
    edited = ids
    mapping: dict[int, int] = {}
    locked: set[int] = set()
    for edit in edits:
        change = relabelling(edit, frame)
        if change:
            mapping = chain(mapping, change)
        elif isinstance(edit, Lock):
            locked = locked | {edit.id} if edit.locked else locked - {edit.id}
        elif frame in painted_frames(edit):
            edited = relabel(edited, mapping).astype(np.int32, copy=edited is ids)
            mapping = {}
            _paint(edited, frame, edit, locked)
    return relabel(edited, mapping)


def relabelled_only(frame: int, edits: Sequence[Edit]) -> dict[int, int] | None:
    """What edits do to the ids of a frame, if they paint nothing there: old -> new; else None."""
    mapping: dict[int, int] = {}
    for edit in edits:
        change = relabelling(edit, frame)
        if change:
            mapping = chain(mapping, change)
        elif frame in painted_frames(edit):
            return None
    return mapping


def chain(first: dict[int, int], second: dict[int, int]) -> dict[int, int]:
    """One relabelling after another."""
    both = {old: second.get(new, new) for old, new in first.items()}
    return both | {old: new for old, new in second.items() if old not in first}


def relabel(ids: np.ndarray, mapping: dict[int, int]) -> np.ndarray:
    """Ids of any shape with some exchanged; the argument itself where none occurs."""
    changed = ids
    for old, new in mapping.items():
        if old == new:
            continue
        here = ids == old
        if here.any():
            if changed is ids:
                changed = ids.copy()
            changed[here] = new
    return changed


def _paint(ids: np.ndarray, frame: int, edit: Edit, locked: set[int]) -> None:
    """Paints into a map, in place."""
    if isinstance(edit, Paint):
        stroke = draw_stroke(ids.shape, edit.points, edit.radius)
        if edit.erase:
            ids[stroke & (ids == edit.id)] = 0
            return
    elif isinstance(edit, Masks):
        stroke = decode_mask(ids.shape, edit.masks[str(frame)])
        ids[ids == edit.id] = 0
    if locked:
        stroke &= ~np.isin(ids, list(locked))
    ids[stroke] = edit.id


def draw_stroke(shape: tuple[int, ...], points: Sequence[Sequence[float]], radius: float) -> np.ndarray:
    """bool [H, W]: the pixels within `radius` of a line through (x, y) points."""
    canvas = np.zeros(shape, np.uint8)
    # (x, y) are positions on the picture; OpenCV counts from the middle of the first pixel.
    fixed = np.round((np.asarray(points, float) - 0.5) * 2**SUBPIXEL).astype(np.int32)
    for x, y in fixed.tolist():
        cv2.circle(canvas, (x, y), round(radius * 2**SUBPIXEL), 1, -1, cv2.LINE_8, SUBPIXEL)
    if len(fixed) > 1:
        width = max(1, round(2 * radius))
        cv2.polylines(canvas, [fixed[:, None]], False, 1, width, cv2.LINE_8, SUBPIXEL)
    return canvas.astype(bool)


def encode_mask(mask: np.ndarray) -> list[int]:
    """Lengths of the runs of a mask bool [H, W], row by row, the first outside."""
    flat = np.concatenate([[False], mask.reshape(-1)])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(np.concatenate([[0], changes, [mask.size]])).tolist()


def decode_mask(shape: tuple[int, ...], runs: Sequence[int]) -> np.ndarray:
    """bool [H, W] from `encode_mask`.

    Raises:
        EditError: the runs do not add up to the size of the frame.
    """
    if sum(runs) != shape[0] * shape[1]:
        raise EditError("a mask has another size than the frame")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(shape)
