"""Writes the synthetic data set in the layouts of COCO panoptic and VIPSeg, so that their readers read it.

    OUT/train2017, OUT/val2017                      <12 digits>.jpg              still images, as datasets/coco
    OUT/panoptic_train2017, OUT/panoptic_val2017    <12 digits>.png              id = R + 256 G + 65536 B
    OUT/annotations/panoptic_{train,val}2017.json
    OUT/VIPSeg_720P/images/<video>/<8 digits>.jpg                                videos, as VIPSeg_720P
    OUT/VIPSeg_720P/panomasksRGB/<video>/<8 digits>.png
    OUT/VIPSeg_720P/panoptic_gt_VIPSeg_{train,val,long}.json

Item i of a split is a pure function of (seed, split, i), independent of the numbers of workers and items.
"""

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from entitysam.data.parallel import Progress, parallel_map
from entitysam.data.synthetic.long import LongVideo
from entitysam.data.synthetic.render import CATEGORIES, DEFAULT_SIZE, render_video
from entitysam.ops import ids_to_rgb, mask_to_box

JPEG_QUALITY = 92
IMAGE_SIDES = (256, 320)  # range of the sides of still images if no size is given
# Part of the seed; changing a number changes the data of the split.
SPLIT_CODES = {"train2017": 0, "val2017": 1, "train": 2, "val": 3, "long": 4}
THINGS_PER_5000_FRAMES = 220


@dataclass(frozen=True)
class SyntheticSet:
    """Numbers of images, videos and frames. Sizes are (height, width); `image_size` None draws both sides from `IMAGE_SIDES`."""

    train_images: int = 4000
    val_images: int = 100
    train_videos: int = 300
    train_frames: int = 12
    val_videos: int = 24
    val_frames: int = 16
    video_size: tuple[int, int] = DEFAULT_SIZE
    image_size: tuple[int, int] | None = None
    seed: int = 0

    def __len__(self) -> int:
        return self.train_images + self.val_images + self.train_videos + self.val_videos


def write_synthetic(
    out: str | Path, plan: SyntheticSet, workers: int = 0, progress: Progress = lambda done: None
) -> None:
    """Renders and writes a data set. Each index is written last: an interrupted run leaves no index.

    Args:
        out: folder; files of an earlier run in it are overwritten.
        plan: numbers and sizes.
        workers: processes.
        progress: called with the number of finished images and videos, up to `len(plan)`.
    """
    out = Path(out)
    done = 0
    for split, count in (("train2017", plan.train_images), ("val2017", plan.val_images)):
        if count:
            draw = partial(_write_image, out, plan, split)
            _write_split(
                out / f"annotations/panoptic_{split}.json", draw, count, workers, _after(progress, done), False
            )
        done += count
    videos = (("train", plan.train_videos, plan.train_frames), ("val", plan.val_videos, plan.val_frames))
    for split, count, frames in videos:
        if count:
            draw = partial(_write_video, out / "VIPSeg_720P", plan, split, frames)
            index = out / f"VIPSeg_720P/panoptic_gt_VIPSeg_{split}.json"
            _write_split(index, draw, count, workers, _after(progress, done), True)
        done += count


def _after(progress: Progress, before: int) -> Progress:
    return lambda done: progress(before + done)


def _write_split(
    index: Path, draw: Callable[[int], Any], count: int, workers: int, progress: Progress, are_videos: bool
) -> None:
    index.unlink(missing_ok=True)
    entries = parallel_map(draw, range(count), workers, progress)
    contents = {
        "info": {"description": "Synthetic scenes with exact entity ids, written by entitysam."},
        "videos" if are_videos else "images": [entry for entry, _ in entries],
        "annotations": [annotation for _, annotation in entries],
        "categories": CATEGORIES,
    }
    index.parent.mkdir(parents=True, exist_ok=True)
    partial_file = index.with_suffix(".partial")
    partial_file.write_text(json.dumps(contents))
    os.replace(partial_file, index)


def _write_image(out: Path, plan: SyntheticSet, split: str, index: int) -> tuple[dict[str, Any], dict[str, Any]]:
    seed = (plan.seed, SPLIT_CODES[split], index)
    sides = np.random.default_rng((*seed, 1)).integers(IMAGE_SIDES[0], IMAGE_SIDES[1] + 1, 2)
    size = plan.image_size or (int(sides[0]), int(sides[1]))
    frames, ids, categories = render_video(seed, 1, size)
    name = f"{index:012d}"
    _write_rgb(out / split / f"{name}.jpg", frames[0])
    _write_rgb(out / f"panoptic_{split}" / f"{name}.png", ids_to_rgb(ids[0]))
    image = {"id": index, "file_name": f"{name}.jpg", "height": size[0], "width": size[1]}
    segments = segments_info(ids[0], categories)
    return image, {"image_id": index, "file_name": f"{name}.png", "segments_info": segments}


def write_long(
    out: str | Path,
    videos: int = 4,
    num_frames: int = 5000,
    size: tuple[int, int] = DEFAULT_SIZE,
    seed: int = 0,
    workers: int = 0,
    progress: Progress = lambda done: None,
) -> None:
    """Renders long videos (see `synthetic.long`) and writes them as split "long" of the VIPSeg layout, frame by frame.

    Args:
        out: folder; files of an earlier run in it are overwritten.
        videos: number of videos.
        num_frames, size, seed: of `LongVideo`; a video has 220 things per 5000 frames.
        workers: processes.
        progress: told how many of the videos are done.
    """
    folder = Path(out) / "VIPSeg_720P"
    draw = partial(_write_long_video, folder, num_frames, size, seed)
    _write_split(folder / "panoptic_gt_VIPSeg_long.json", draw, videos, workers, progress, True)


def _write_long_video(
    out: Path, num_frames: int, size: tuple[int, int], seed: int, index: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    things = max(num_frames * THINGS_PER_5000_FRAMES // 5000, 1)
    video = LongVideo((seed, SPLIT_CODES["long"], index), num_frames, size, things)
    return _write_frames(out, f"long_{index:05d}", video, video.categories())


def _write_video(
    out: Path, plan: SyntheticSet, split: str, num_frames: int, index: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    seed = (plan.seed, SPLIT_CODES[split], index)
    frames, ids, categories = render_video(seed, num_frames, plan.video_size)
    return _write_frames(out, f"{split}_{index:05d}", zip(frames, ids), categories)


def _write_frames(
    out: Path, video_id: str, frames: Iterable[tuple[np.ndarray, np.ndarray]], categories: dict[int, int]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Writes the frames and id maps of a video; returns its entries in the index file."""
    images, annotations = [], []
    for time, (frame, ids) in enumerate(frames):
        name = f"{time:08d}"
        _write_rgb(out / "images" / video_id / f"{name}.jpg", frame)
        _write_rgb(out / "panomasksRGB" / video_id / f"{name}.png", ids_to_rgb(ids))
        # VIPSeg names a frame by its mask, in both lists.
        images.append({"id": name, "file_name": f"{name}.png", "height": ids.shape[0], "width": ids.shape[1]})
        segments = segments_info(ids, categories)
        annotations.append({"image_id": name, "file_name": f"{name}.png", "segments_info": segments})
    return {"video_id": video_id, "images": images}, {"video_id": video_id, "annotations": annotations}


def segments_info(ids: np.ndarray, categories: dict[int, int]) -> list[dict[str, Any]]:
    """The COCO panoptic segment list of an id map [H, W]: id, category_id, iscrowd, area in pixels, bbox [x, y, w, h]."""
    areas = np.bincount(ids.ravel())
    return [
        {
            "id": int(segment_id),
            "category_id": categories[int(segment_id)],
            "iscrowd": 0,
            "area": int(areas[segment_id]),
            "bbox": mask_to_box(ids == segment_id),
        }
        for segment_id in np.flatnonzero(areas)
        if segment_id
    ]


def _write_rgb(path: Path, rgb: np.ndarray) -> None:
    """Writes uint8 [H, W, 3] RGB as JPEG or PNG, by the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if path.suffix == ".jpg" else []
    if not cv2.imwrite(str(path), rgb[..., ::-1], options):
        raise OSError(f"{path}: could not be written")
