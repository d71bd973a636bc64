"""Masks as polygons along the borders of their pixels, and back, to the pixel.

A polygon of an exported mask has integer corners. Holes and further parts are joined to the first part by a line that is
walked in both directions, so that one polygon holds any mask: the even-odd and the non-zero rule both fill exactly its pixels.
"""

import cv2
import numpy as np

Ring = np.ndarray  # float64 [P, 2] (x, y) pixels, closed


def to_polygon(mask: np.ndarray, tolerance: float = 0.0) -> Ring:
    """One polygon for a mask bool [H, W] with at least one pixel.

    Args:
        mask: of any number of parts and holes.
        tolerance: largest distance in pixels by which the polygon may differ from the border; 0 keeps every pixel.
    """
    rings = trace(mask)
    if tolerance > 0:
        simple = [cv2.approxPolyDP(ring.astype(np.int32)[:, None], tolerance, True)[:, 0] for ring in rings]
        rings = [ring.astype(float) for ring in simple if len(ring) >= 3] or rings[:1]
    return bridge(rings)


def trace(mask: np.ndarray) -> list[Ring]:
    """The borders of a mask bool [H, W] with the mask to their right, the longest first; only corners are points."""
    padded = np.pad(mask.astype(np.int8), 1)
    down = np.diff(padded, axis=0)[:, 1:-1]  # [H + 1, W] between rows
    across = np.diff(padded, axis=1)[1:-1]  # [H, W + 1] between columns
    follows: dict[tuple[int, int], list[tuple[int, int]]] = {}
    borders = [
        (down == 1, (0, 0), (1, 0)),  # upper border: to the right
        (down == -1, (1, 0), (0, 0)),  # lower border: to the left
        (across == -1, (0, 0), (0, 1)),  # right border: down
        (across == 1, (0, 1), (0, 0)),  # left border: up
    ]
    for border, start, end in borders:
        for y, x in np.argwhere(border).tolist():
            follows.setdefault((x + start[0], y + start[1]), []).append((x + end[0], y + end[1]))
    rings = []
    while follows:
        first = next(iter(follows))
        ring, place = [first], _step(follows, first)
        while place != first:
            ring.append(place)
            place = _step(follows, place)
        rings.append(_corners(np.array(ring, float)))
    return sorted(rings, key=len, reverse=True)


def _step(follows: dict[tuple[int, int], list[tuple[int, int]]], place: tuple[int, int]) -> tuple[int, int]:
    after = follows[place].pop()
    if not follows[place]:
        del follows[place]
    return after


def _corners(ring: Ring) -> Ring:
    """Without the points between two steps in one direction."""
    step = ring - np.roll(ring, 1, axis=0)
    return ring[(step != np.roll(step, -1, axis=0)).any(1)]


def bridge(rings: list[Ring]) -> Ring:
    """Joins rings to one: from a point of the joined part to the closest point of the next ring, around it, and back."""
    joined = rings[0]
    for ring in rings[1:]:
        distance = ((joined[:, None] - ring[None]) ** 2).sum(-1)  # [P, R]
        here, there = np.unravel_index(distance.argmin(), distance.shape)
        around = np.concatenate([ring[there:], ring[: there + 1]])
        joined = np.concatenate([joined[: here + 1], around, joined[here:]])
    return joined


def fill(rings: list[Ring], height: int, width: int) -> np.ndarray:
    """bool [H, W]: the pixels whose middles are inside the rings by the even-odd rule."""
    toggles = np.zeros((height, width + 1), np.uint8)
    for ring in rings:
        start, end = ring, np.roll(ring, -1, axis=0)
        upper = np.where((start[:, 1] < end[:, 1])[:, None], start, end)
        lower = np.where((start[:, 1] < end[:, 1])[:, None], end, start)
        first = np.clip(np.ceil(upper[:, 1] - 0.5), 0, height).astype(int)  # rows whose middle the edge crosses
        count = np.clip(np.ceil(lower[:, 1] - 0.5), 0, height).astype(int) - first
        edge = np.repeat(np.arange(len(ring)), count)
        rows = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
        slope = (lower[:, 0] - upper[:, 0]) / np.where(lower[:, 1] > upper[:, 1], lower[:, 1] - upper[:, 1], 1)
        x = upper[edge, 0] + slope[edge] * (rows + 0.5 - upper[edge, 1])
        columns = np.clip(np.ceil(x - 0.5), 0, width).astype(int)
        np.add.at(toggles, (rows, columns), 1)
    return np.cumsum(toggles[:, :width] & 1, axis=1) % 2 == 1
