"""Tracked boxes: `tracks.json`, the result format of TAO with an additional key `frame`."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from entitysam.data.detections.readers import FrameRecord
from entitysam.engine.formats.base import ENTITY, Entry, PredictionError, PredictionFormat, read_index_file
from entitysam.engine.formats.segments import OfVideo, TrackedBox
from entitysam.evaluation import EvaluationError, TrackedVideo, Tracks
from entitysam.io.files import whole_file
from entitysam.io.json_files import check_type
from entitysam.masa.video import TrackedFrame
from entitysam.structures import Video

INDEX = "tracks.json"


class TracksFormat(PredictionFormat):
    """The entry of a video is the list of its boxes {video_id, frame, track_id, category_id, bbox, score}.

    `frame` is the 0-based index among the evaluated frames, after `step`. A video without boxes counts as not predicted.
    """

    input_types = (TrackedVideo,)

    def predict(self, method: Any, video: Video) -> Iterable[TrackedFrame]:
        return method.track(video)

    def write(self, video: Video, segmented: Any, categories: np.ndarray | None = None) -> Entry:
        rows = []
        for tracked in segmented:
            objects = tracked.objects
            for number, box, category, score in zip(tracked.ids, objects.boxes, objects.categories, objects.scores):
                x1, y1, x2, y2 = box.tolist()
                row = {"video_id": video.annotation["key"], "frame": tracked.index, "track_id": int(number)}
                rows.append(
                    {**row, "category_id": int(category), "bbox": [x1, y1, x2 - x1, y2 - y1], "score": float(score)}
                )
        return rows

    def write_index(self, entries: Sequence[Entry]) -> None:
        with whole_file(self.folder / INDEX) as temporary:
            temporary.write_text(json.dumps([row for entry in entries for row in entry]), encoding="utf-8")

    def read_index(self) -> dict[str, list[Entry]]:
        path = self.folder / INDEX
        found: dict[str, list[Entry]] = {}
        for row in check_type(read_index_file(path), list[OfVideo], f"{path}: not a file of tracks", PredictionError):
            found.setdefault(str(row["video_id"]), [[]])[0].append(row)
        return found

    def pair(self, video: Video, entry: Entry | None, kind: type) -> TrackedVideo:
        checked = check_type(entry or [], list[TrackedBox], f"{INDEX}: video {video.video_id}, boxes", PredictionError)
        rows = [[row["frame"], row["track_id"], row["category_id"], *row["bbox"]] for row in checked]
        late = [row[0] for row in rows if not 0 <= row[0] < len(video)]
        if late:
            raise PredictionError(f"video {video.video_id}: a box on frame {late[0]}, but it has {len(video)} frames")
        prediction, truth = Tracks.from_rows(rows), annotated_tracks(video.video_id, video.annotation["frames"])
        if self.class_agnostic:
            truth.category[:], prediction.category[:] = ENTITY, ENTITY
        return TrackedVideo(video.video_id, truth, prediction)

    def maps(self, video: Video, entry: Entry | None, frame: int) -> tuple[np.ndarray, np.ndarray]:
        pair, size = self.pair(video, entry, TrackedVideo), (video.height, video.width)
        return paint_boxes(pair.truth, frame, size), paint_boxes(pair.prediction, frame, size)


def annotated_tracks(video_id: Any, frames: Sequence[FrameRecord]) -> Tracks:
    """The annotations of a video; track ids become 1, 2, ... in order of first appearance, those of crowds 0.

    Raises:
        EvaluationError: an annotated box is not finite.
    """
    numbers: dict[Any, int] = {}
    rows, ignore = [], []
    for index, frame in enumerate(frames):
        for track, box, category, crowd in zip(
            frame.track_ids, frame.objects.boxes, frame.objects.categories, frame.ignore
        ):
            if not np.isfinite(box).all():
                raise EvaluationError(f"video {video_id}, frame {index}: an annotated box is not finite")
            number = 0 if crowd else numbers.setdefault(track, len(numbers) + 1)
            x1, y1, x2, y2 = box.tolist()
            rows.append([index, number, int(category), x1, y1, x2 - x1, y2 - y1])
            ignore.append(bool(crowd))
    return Tracks.from_rows(rows, ignore)


def paint_boxes(tracks: Tracks, frame: int, size: tuple[int, int]) -> np.ndarray:
    """int32 [H, W] track id of the smallest box that covers each pixel, 0 = none."""
    ids = np.zeros(size, np.int32)
    rows = np.flatnonzero(tracks.frame == frame)
    for row in rows[np.argsort(-tracks.box[rows, 2:].prod(1), kind="stable")]:
        x, y, width, height = np.rint(tracks.box[row]).astype(int)
        ids[max(y, 0) : max(y + height, 0), max(x, 0) : max(x + width, 0)] = tracks.track_id[row]
    return ids
