"""Where to look first: frames and entities on which ids are likely to be wrong.

Wrong ids show where pixels change hands while the picture stays the same. Between consecutive frames, the pixels of entity a
that belong to entity b (or to nobody) on the next frame are counted, and how many of them look as before. An object that
moves uncovers something else: its pixels change their colour with their entity. Falls of the score and jumps of the size that
nothing else explains come after them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

GRID = 192  # longer side of the maps and frames that are compared
SAME = 24  # largest difference of a colour value (0..255) of a pixel that looks as before
LEAST = 0.25  # share of an entity that changes hands
WEAKEST = 0.01  # strength of an entry
CLOSE = 4  # frames within which the same entities are one entry
SMALL = 6e-4  # share of the frame: entities of this size count half
BORDER = 2  # cells
UNKNOWN = 0.5  # share of pixels that look as before, without frames


@dataclass(frozen=True)
class Finding:
    """One entry of the list.

    Attributes:
        frame: on which to look; what is wrong begins there.
        kind: "hands" (pixels of one entity go to another), "birth", "death" (in the middle of the picture), "score", "size".
        ids: of the entities; the one that loses pixels first.
        strength: 0..1, by which the list is sorted.
    """

    frame: int
    kind: str
    ids: tuple[int, ...]
    strength: float

    @property
    def text(self) -> str:
        """In words, with {0} and {1} for the entities."""
        return {
            "hands": "{0} becomes {1}",
            "birth": "{0} appears in the middle of the picture",
            "death": "{0} vanishes in the middle of the picture",
            "score": "the score of {0} falls",
            "size": "the size of {0} jumps",
        }[self.kind]


def find_instabilities(
    maps: Iterable[np.ndarray],
    frames: Iterable[np.ndarray] | None = None,
    scores: Mapping[int, np.ndarray] | None = None,
    on_frame: Callable[[], Any] = lambda: None,
) -> list[Finding]:
    """The list, the strongest first.

    Args:
        maps: int [H, W] of each frame, 0 = nobody.
        frames: uint8 [H, W, 3] of each frame, for what looks as before; None = only maps are compared.
        scores: entity -> score [T] in 0..1, 0 where it is not visible.
        on_frame: called after every frame.
    """
    findings: list[Finding] = []
    before: tuple[np.ndarray, np.ndarray | None] | None = None
    pictures: Iterator[np.ndarray | None] = iter(frames) if frames is not None else iter(lambda: None, 0)
    for frame, (id_map, picture) in enumerate(zip(maps, pictures)):
        now = _shrink_map(id_map), None if picture is None else _shrink_picture(picture, id_map.shape)
        if before is not None:
            findings += _compare(frame, *before, *now)
        before = now
        on_frame()
    for entity, values in (scores or {}).items():
        findings += _score_falls(entity, np.asarray(values, float))
    return [finding for finding in _strongest_of_close(findings) if finding.strength >= WEAKEST]


def _shrink_map(ids: np.ndarray) -> np.ndarray:
    step = _step(ids.shape)
    return ids[step // 2 :: step, step // 2 :: step]


def _step(shape: tuple[int, ...]) -> int:
    return max(1, round(max(shape[:2]) / GRID))


def _shrink_picture(picture: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """int16 [h, w, 3], each cell the mean around the pixel that the map's cell is."""
    step = _step(shape)
    if picture.shape[:2] != shape:
        picture = cv2.resize(picture, shape[1::-1], interpolation=cv2.INTER_AREA)
    mean = cv2.blur(picture, (2 * step + 1, 2 * step + 1))
    return mean[step // 2 :: step, step // 2 :: step].astype(np.int16)


def _compare(
    frame: int, old: np.ndarray, old_picture: np.ndarray | None, new: np.ndarray, new_picture: np.ndarray | None
) -> Iterator[Finding]:
    """What is odd between a frame and the one before."""
    ids, codes = np.unique(np.stack([old, new]), return_inverse=True)
    first, second = codes.reshape(2, -1)
    count = len(ids)
    flow = np.bincount(first * count + second, minlength=count * count).reshape(count, count).astype(float)
    same = np.full(flow.shape, UNKNOWN)
    if old_picture is not None and new_picture is not None:
        still = (np.abs(old_picture - new_picture).max(-1) < SAME).reshape(-1)
        kept = np.bincount((first * count + second)[still], minlength=count * count).reshape(count, count)
        same = kept / np.maximum(flow, 1)
    old_area, new_area = flow.sum(1), flow.sum(0)
    border = _on_border(new, ids)
    for a, b in np.argwhere(flow):
        if a == b or (ids[a] == 0 and old_area[b]) or (ids[b] == 0 and new_area[a] > 0.5 * old_area[a]):
            continue
        # The share of the pixels of the entity that loses them, or of the new one that gets them.
        share = max(flow[a, b] / old_area[a] if ids[a] else 0.0, 0.0 if old_area[b] else flow[a, b] / new_area[b])
        if share < LEAST:
            continue
        size = flow[a, b] / old.size
        strength = share * same[a, b] * size / (size + SMALL)
        if ids[a] and ids[b]:
            yield Finding(frame, "hands", (int(ids[a]), int(ids[b])), strength)
        elif ids[a]:
            yield Finding(frame, "death", (int(ids[a]),), strength * (0.5 if border[a] else 1))
        else:
            yield Finding(frame, "birth", (int(ids[b]),), strength * (0.5 if border[b] else 1))
    yield from _size_jumps(frame, ids, old_area, new_area, flow, old.size)


def _size_jumps(
    frame: int, ids: np.ndarray, old_area: np.ndarray, new_area: np.ndarray, flow: np.ndarray, total: int
) -> Iterator[Finding]:
    for index, entity in enumerate(ids):
        if entity and old_area[index] and new_area[index]:
            ratio = abs(np.log(new_area[index] / old_area[index]))
            size = max(old_area[index], new_area[index]) / total
            if ratio > np.log(1.5):
                yield Finding(frame, "size", (int(entity),), 0.4 * min(ratio / 1.5, 1) * size / (size + SMALL))


def _score_falls(entity: int, scores: np.ndarray) -> Iterator[Finding]:
    both = (scores[1:] > 0) & (scores[:-1] > 0)
    falls = np.where(both, scores[:-1] - scores[1:], 0)
    for index in np.flatnonzero(falls > 0.2):
        yield Finding(int(index) + 1, "score", (entity,), 0.4 * float(falls[index]))


def _on_border(ids_map: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """For each id, whether it is near the border of the picture."""
    inner = ids_map[BORDER:-BORDER, BORDER:-BORDER]
    edge = np.ones(ids_map.shape, bool)
    if inner.size:
        edge[BORDER:-BORDER, BORDER:-BORDER] = False
    return np.isin(ids, ids_map[edge])


def _strongest_of_close(findings: list[Finding]) -> list[Finding]:
    """Sorted by strength; of entries of the same entities close in time one, with the first frame and the largest strength."""
    kept: dict[tuple[int, ...], list[Finding]] = {}
    for finding in sorted(findings, key=lambda one: (one.frame, -one.strength, one.ids)):
        # Two entities that exchange their ids give two entries, one for each direction.
        group = kept.setdefault(tuple(sorted(finding.ids)), [])
        if not group or finding.frame - group[-1].frame > CLOSE or group[-1].strength < finding.strength / 2:
            group.append(finding)
        else:
            group[-1] = replace(group[-1], strength=max(group[-1].strength, finding.strength))
    return sorted(
        (one for group in kept.values() for one in group), key=lambda one: (-one.strength, one.frame, one.ids)
    )
