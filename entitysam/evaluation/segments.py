"""The segments that the JSON lists for a video, as tables [T, N] over frames and ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from entitysam.evaluation.evaluator import EvaluationError
from entitysam.evaluation.overlaps import Overlaps
from entitysam.evaluation.videos import PanopticSequence

NO_AREA = -1


@dataclass(frozen=True)
class SegmentTable:
    """The listed segments of the ground truth or the prediction of a video.

    Attributes:
        ids: int64 [N], ascending: every id that some frame lists.
        listed: bool [T, N].
        area: int64 [T, N] pixels as listed (NO_AREA where a listed segment has none), 0 where not listed.
        category: int64 [T, N] category id, -1 where missing.
        crowd: bool [T, N].
        position: int64 [T, N] index of the first entry of the id in the frame's list.
    """

    ids: np.ndarray
    listed: np.ndarray
    area: np.ndarray
    category: np.ndarray
    crowd: np.ndarray
    position: np.ndarray

    @classmethod
    def from_sequence(
        cls,
        sequence: PanopticSequence,
        where: str,
        repeated: Literal["add", "replace"],
        required: Sequence[str] = (),
    ) -> "SegmentTable":
        """Reads the segment lists.

        Args:
            sequence: ground truth or prediction of the video.
            where: start of the error messages, e.g. "video 12, prediction".
            repeated: rule for an id that is listed twice on a frame: "add" sums the areas and keeps category and crowd
                flag of the first entry (video panoptic quality); "replace" keeps the later entry (image PQ, STQ).
            required: keys that every segment must have besides `id`.

        Raises:
            EvaluationError: a key is missing, an id is listed twice and only one entry has an area.
        """
        ids = np.unique([_value(s, "id", where, t) for t, frame in enumerate(sequence.segments) for s in frame])
        ids = ids.astype(np.int64)
        column_of_id = {int(segment_id): column for column, segment_id in enumerate(ids)}
        shape = (len(sequence), len(ids))
        table = cls(
            ids=ids,
            listed=np.zeros(shape, bool),
            area=np.zeros(shape, np.int64),
            category=np.full(shape, -1, np.int64),
            crowd=np.zeros(shape, bool),
            position=np.zeros(shape, np.int64),
        )
        for t, frame in enumerate(sequence.segments):
            for position, segment in enumerate(frame):
                for key in required:
                    _value(segment, key, where, t)
                table._enter(t, column_of_id[int(segment["id"])], position, segment, repeated, where)
        return table

    def _enter(self, t: int, column: int, position: int, segment: Any, repeated: str, where: str) -> None:
        area, at = int(segment.get("area", NO_AREA)), (t, column)
        again = bool(self.listed[at])
        if again and repeated == "add":
            if NO_AREA in (area, self.area[at]):
                raise EvaluationError(f"{where}, frame {t}: id {segment['id']} is listed twice, once without 'area'")
            self.area[at] += area
            return
        self.area[at] = area
        self.category[at] = segment.get("category_id", -1)
        self.crowd[at] = segment.get("iscrowd", 0) == 1
        if not again:
            self.listed[at] = True
            self.position[at] = position

    def columns(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For int64 ids [n] of a map: column (arbitrary if unknown) and whether some frame lists the id, [n] each."""
        if not len(self.ids):
            return np.zeros(len(ids), np.int64), np.zeros(len(ids), bool)
        column = np.searchsorted(self.ids, ids).clip(max=len(self.ids) - 1)
        return column, self.ids[column] == ids

    def pixels(self, frame: np.ndarray, ids: np.ndarray, pixels: np.ndarray) -> np.ndarray:
        """Sums pixel counts per frame and segment: int64 [T, N]; ids that are not in the table are ignored."""
        column, known = self.columns(ids)
        total = np.zeros(self.listed.shape, np.int64)
        np.add.at(total, (frame[known], column[known]), pixels[known])
        return total


def _value(segment: Any, key: str, where: str, t: int) -> Any:
    if key not in segment:
        raise EvaluationError(f"{where}, frame {t}: segment {segment.get('id', '?')} has no '{key}'")
    return segment[key]


def counted_areas(table: SegmentTable, overlaps: Overlaps, where: str, check_listed_area: bool) -> np.ndarray:
    """Areas of predicted segments counted in the maps, after the checks of the panoptic metrics.

    Args:
        table: the predicted segments.
        overlaps: of the video.
        where: start of the error messages.
        check_listed_area: require that listed areas equal the counted ones.

    Returns:
        int64 [T, N], > 0 where listed.

    Raises:
        EvaluationError: an id of a map is not listed on its frame, a listed id has no pixels, an area is wrong.
    """
    column, known = table.columns(overlaps.predicted_id)
    listed = np.zeros(len(known), bool)
    listed[known] = table.listed[overlaps.frame[known], column[known]]
    for entry in np.flatnonzero(~listed & (overlaps.predicted_id != 0))[:1]:
        t, segment_id = overlaps.frame[entry], overlaps.predicted_id[entry]
        raise EvaluationError(f"{where}, frame {t}: id {segment_id} is in the map and not listed in the JSON")
    area = table.pixels(overlaps.frame[listed], overlaps.predicted_id[listed], overlaps.pixels[listed])
    for t, n in np.argwhere(table.listed & (area == 0))[:1]:
        raise EvaluationError(f"{where}, frame {t}: id {table.ids[n]} is listed in the JSON and has no pixels")
    wrong = table.listed & (table.area != NO_AREA) & (table.area != area)
    for t, n in np.argwhere(wrong)[:1] if check_listed_area else ():
        raise EvaluationError(
            f"{where}, frame {t}: id {table.ids[n]} has area {table.area[t, n]} in the JSON and {area[t, n]} in the map"
        )
    return area
