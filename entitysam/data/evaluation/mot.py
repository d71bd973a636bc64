"""Videos with annotated tracks to evaluate trackers on: TAO, BDD100K MOT and MOTS, CocoVID, MOT, panoptic videos.

`Video.annotation["frames"]` is a list of `detections.FrameRecord`, one per frame of the video.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from natsort import natsorted

from entitysam.data.detections.readers import FrameRecord, read_detections
from entitysam.data.evaluation.base import IMAGE_SUFFIXES, EvaluationSet
from entitysam.data.evaluation.vipseg import VIPSegVideos
from entitysam.data.images import DataError, read_image
from entitysam.data.index import require_folder
from entitysam.data.training.coco import HINT
from entitysam.registry import DATASETS, ConfigError
from entitysam.structures import Detections, Video


@DATASETS.register("tracks")
class AnnotatedTracks(EvaluationSet):
    """Tracks from a file of any format of `data.detections.readers`, or from a folder of Scalabel files (BDD100K).

    Args:
        annotations: the file or folder.
        images: folder of the pictures; their names in the file are relative to it. A MOT text has no names: the pictures
            of the folder are its frames, in natural order.
        step: only every `step`-th annotated frame.

    Raises:
        DataError: files missing or broken, annotations without track ids.
        ConfigError: step below 1.
    """

    def __init__(self, annotations: str | Path, images: str | Path, step: int = 1) -> None:
        path, folder = Path(annotations), require_folder(Path(images), HINT)
        found = read_detections(path)
        check_step(step)
        videos = []
        for name, frames in found.videos.items():
            name = name or path.stem
            files = _files(frames, folder, path)
            for frame in frames:
                _check_track_ids(frame, path)
            height, width = read_image(files[0]).shape[:2]
            videos.append(
                Video(name, files[::step], height, width, {"key": name, "frames": frames[::step], "step": step})
            )
        categories = found.categories or [{"id": 0, "name": "object"}]
        title = f"{path}" + (f", every {step}. frame" if step > 1 else "")
        super().__init__(title, "tracks", categories, videos)


@DATASETS.register("panoptic_tracks")
class PanopticTracks(EvaluationSet):
    """The boxes of a panoptic set in VIPSeg's layout, e.g. of the synthetic videos.

    Args:
        root, split: as for `VIPSegVideos`.
        step: only every `step`-th frame.
        things_only: leave the boxes of stuff out.

    Raises:
        DataError: as `VIPSegVideos`; a segment without box.
        ConfigError: step below 1.
    """

    def __init__(self, root: str | Path, split: str = "val", step: int = 1, things_only: bool = True) -> None:
        source = VIPSegVideos(root, split)
        check_step(step)
        things = {c["id"] for c in source.categories if not things_only or c.get("isthing", 1)}
        videos = []
        for video in source.videos:
            annotation = video.annotation
            frames = [
                _frame_record(Path(name).stem, index, segments, things, source.annotations)
                for index, (name, segments) in enumerate(zip(annotation["names"], annotation["segments"]))
            ]
            kept = {"key": annotation["key"], "frames": frames[::step], "step": step}
            videos.append(replace(video, frame_files=video.frame_files[::step], annotation=kept))
        title = source.title + (f", every {step}. frame" if step > 1 else "")
        super().__init__(title, "tracks", [c for c in source.categories if c["id"] in things], videos)


def check_step(step: int) -> None:
    """Raises ConfigError where a step is below 1."""
    if step < 1:
        raise ConfigError(f"evaluation.dataset.step: must be at least 1, not {step}")


def _files(frames: list[FrameRecord], folder: Path, path: Path) -> list[Path]:
    """The picture of each frame."""
    if all(frame.file for frame in frames):
        return [folder / frame.file for frame in frames]
    files = natsorted(file for file in folder.iterdir() if file.suffix in IMAGE_SUFFIXES)
    last = max(frame.index for frame in frames)
    if last >= len(files):
        raise DataError(f"{path}: has a frame {last + 1}, {folder} only {len(files)} pictures")
    return [files[frame.index] for frame in frames]


def _check_track_ids(frame: FrameRecord, path: Path) -> None:
    lacking = [i for i, number in enumerate(frame.track_ids) if number is None and not frame.ignore[i]]
    if lacking:
        where = frame.file or frame.name or frame.index
        raise DataError(f"{path}: {where}: object {lacking[0] + 1} has no track id: these are detections, not tracks")


def _frame_record(name: str, index: int, segments: Any, things: set[int], path: Path) -> FrameRecord:
    listed = [segment for segment in segments if segment["category_id"] in things]
    try:
        boxes = np.array([segment["bbox"] for segment in listed], float).reshape(-1, 4)
    except KeyError as error:
        raise DataError(f"{path}: a segment of {name} has no box") from error
    boxes[:, 2:] += boxes[:, :2]
    objects = Detections.of(boxes, categories=[segment["category_id"] for segment in listed])
    ignore = np.array([segment.get("iscrowd", 0) == 1 for segment in listed], bool)
    return FrameRecord(name, index, objects=objects, track_ids=[segment["id"] for segment in listed], ignore=ignore)
