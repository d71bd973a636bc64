"""Videos with annotated tracks: TAO, BDD100K MOT and MOTS, CocoVID, MOT, panoptic videos.

`Video.annotation["frames"]` is a list of `data.detections.records.FrameRecord`, one per frame of the video.
"""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from natsort import natsorted

from entitysam.data.detections.frame_numbers import find_rule
from entitysam.data.detections.readers import FrameRecord, read_detections
from entitysam.data.detections.records import NumberKey
from entitysam.data.evaluation.base import IMAGE_SUFFIXES, EvaluationSet
from entitysam.data.evaluation.vipseg import VIPSegVideos
from entitysam.data.images import DataError, read_image
from entitysam.data.index import require_folder
from entitysam.data.training.coco import HINT
from entitysam.io.paths import join_inside
from entitysam.registry import DATASETS, ConfigError
from entitysam.structures import Detections, Video

logger = logging.getLogger(__name__)


@DATASETS.register("tracks")
class AnnotatedTracks(EvaluationSet):
    """Tracks from a file of any format of `data.detections.readers`, or from a folder of Scalabel files (BDD100K).

    Args:
        annotations: the file or folder.
        images: folder of the images; their names in the file are relative to it. A MOT text has no names: its frame
            numbers are matched with the images of the folder in natural order, see `data.detections.frame_numbers`.
        step: only every `step`-th annotated frame.

    Raises:
        DataError: files missing or broken, annotations without track ids, frame numbers that fit no rule.
        UnsafePathError: an image name that leaves the folder.
        ConfigError: step below 1.
    """

    def __init__(self, annotations: str | Path, images: str | Path, step: int = 1) -> None:
        path, folder = Path(annotations), require_folder(Path(images), HINT)
        found = read_detections(path)
        check_step(step)
        if not found.videos or not all(found.videos.values()):
            raise DataError(f"{path}: no frames in it")
        videos = []
        for name, frames in found.videos.items():
            name = name or path.stem
            files = _files(frames, folder, path, found.number_key)
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
    """Boxes of a panoptic set in VIPSeg's layout, e.g. of the synthetic videos.

    Args:
        root, split: as for `VIPSegVideos`.
        step: only every `step`-th frame.
        things_only: leave out the boxes of stuff.

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
    """Raises ConfigError if `step` is below 1."""
    if step < 1:
        raise ConfigError(f"evaluation.dataset.step: must be at least 1, not {step}")


def _files(frames: list[FrameRecord], folder: Path, path: Path, key: NumberKey) -> list[Path]:
    """Image file of each frame."""
    if all(frame.file for frame in frames):
        return [join_inside(folder, frame.file, str(path), follow_links=True) for frame in frames]
    files = natsorted(file for file in folder.iterdir() if file.suffix in IMAGE_SUFFIXES)
    numbers = [frame.number for frame in frames if frame.number is not None]
    rule = find_rule(numbers, range(len(files)), [file.stem for file in files], key, open_end=False)
    if rule is None:
        raise DataError(
            f"{path}: its frame numbers {min(numbers)}..{max(numbers)} do not fit the {len(files)} images of {folder}, "
            "counted from 0, from 1, or by the numbers in the image names"
        )
    logger.info("%s: frames matched by %s", path, rule.text)
    lacking = next((number for number in numbers if number not in rule.frame_of), None)
    if lacking is not None:
        raise DataError(f"{path}: frame {lacking} has no image in {folder}, which has {len(files)}")
    return [files[rule.frame_of[number]] for number in numbers]


def _check_track_ids(frame: FrameRecord, path: Path) -> None:
    lacking = [i for i, number in enumerate(frame.track_ids) if number is None and not frame.ignore[i]]
    if lacking:
        raise DataError(
            f"{path}: {frame.label}: object {lacking[0] + 1} has no track id: these are detections, not tracks"
        )


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
