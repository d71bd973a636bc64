"""Converts to VIPSeg_720P's layout: VIPSeg's original release, and Scalabel labels (BDD100K MOTS).

The original release: root/imgs/<video>/<frame>.jpg, root/panomasks/<video>/<frame>.png, root/{train,val,test}.txt. A
mask value v means: 0 = void; 1..124 = stuff of category v - 1; above = thing v % 100 of category v // 100 - 1.
"""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from entitysam.data.categories import read_categories
from entitysam.data.evaluation.base import find_image
from entitysam.data.images import DataError, frame_name, open_image, read_image
from entitysam.data.index import match_schema, parse_json, read_text, require_folder
from entitysam.data.parallel import Progress, parallel_map
from entitysam.data.schemas import ScalabelFile, ScalabelFrame, ScalabelFrames
from entitysam.data.training.coco import HINT
from entitysam.data.training.instances import instance_mask
from entitysam.io.files import whole_file
from entitysam.io.paths import join_inside
from entitysam.ops import ids_to_rgb, mask_to_box

HEIGHT = 720
JPEG_QUALITY = 95
LAST_STUFF = 124  # greatest value of a stuff pixel in the original masks


def convert_vipseg(
    root: Path, out: Path, splits: Sequence[str], workers: int = 0, progress: Progress = lambda done: None
) -> int:
    """Writes the 720P form: height 720, width int(720 * w / h), images bilinear, masks nearest.

    Ids are the values of the original masks, which hold the category and are constant over a video. Images that exist
    are not written again.

    Returns:
        number of videos.

    Raises:
        DataError: a file of the release is missing or broken; a mask value is not that of a category.
        UnsafePathError: a video's name that leaves its folder.
    """
    require_folder(root / "panomasks", HINT)
    _refuse_same_folder(root / "imgs", out)
    lists = {split: read_text(root / f"{split}.txt", HINT).split() for split in splits}
    names = [name for listed in lists.values() for name in listed]
    for name in names:  # all before anything is written
        join_inside(out / "images", name, f"{root}: list of videos")
        join_inside(out / "panomasksRGB", name, f"{root}: list of videos")
    entries = dict(zip(names, parallel_map(partial(_convert_video, root, out), names, workers, progress)))
    for split, listed in lists.items():
        path = out / f"panoptic_gt_VIPSeg_{split}.json"
        _write_index(path, [entries[name] for name in listed], read_categories("vipseg"))
    return len(names)


def _convert_video(root: Path, out: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    masks = sorted((root / "panomasks" / name).glob("*.png"))
    if not masks:
        raise DataError(f"{root / 'panomasks' / name}: no masks. {HINT}")
    frames = []
    for path in masks:
        values = _read_values(path)
        height, width = values.shape
        size = (int(HEIGHT * width / height), HEIGHT)
        ids = np.asarray(Image.fromarray(values.astype(np.int32)).resize(size, Image.Resampling.NEAREST))
        image = out / "images" / name / f"{path.stem}.jpg"
        if not image.is_file():
            pixels = Image.fromarray(read_image(find_image(root / "imgs" / name, path.stem)))
            _save(pixels.resize(size, Image.Resampling.BILINEAR), image)
        frames.append((path.stem, ids))
        _save(Image.fromarray(ids_to_rgb(ids)), out / "panomasksRGB" / name / f"{path.stem}.png")
    return video_entries(name, frames, {v: vipseg_category(v, name) for _, i in frames for v in _values(i)})


def _refuse_same_folder(images: Path, out: Path) -> None:
    if (out / "images").resolve() == images.resolve():
        raise DataError(f"{out}: its images would overwrite those that are converted; give another folder")


def vipseg_category(value: int, name: str) -> int:
    """Category id 0..123 of a value > 0 in an original mask.

    Raises:
        DataError: there is none.
    """
    category = (value if value <= LAST_STUFF else value // 100) - 1
    if not 0 <= category < LAST_STUFF:
        raise DataError(f"video {name}: mask value {value} is not that of a category")
    return category


def convert_scalabel(labels: Path, images: Path, out: Path, split: str) -> int:
    """Writes the videos of Scalabel files (one json of frames with run-length masks per video) in VIPSeg's layout.

    Track ids become 1, 2, ... in order of first appearance, category names ids 0, 1, ... in alphabetic order.

    Returns:
        number of videos.

    Raises:
        DataError: a file is missing or broken, a label has no mask, or masks of a frame overlap.
        UnsafePathError: a name in a file that leaves its folder.
    """
    files = sorted(require_folder(labels, HINT).glob("*.json"))
    if not files:
        raise DataError(f"{labels}: no json files")
    _refuse_same_folder(images, out)
    contents = [_read_frames(path, out) for path in files]
    names = sorted(
        {label["category"] for frames in contents for frame in frames for label in frame.get("labels") or []}
    )
    number_of = {name: number for number, name in enumerate(names)}
    entries = [_convert_scalabel_video(frames, images, out, number_of) for frames in contents]
    categories = [{"id": number, "name": name, "isthing": 1} for name, number in number_of.items()]
    _write_index(out / f"panoptic_gt_VIPSeg_{split}.json", entries, categories)
    return len(entries)


def _read_frames(path: Path, out: Path) -> list[ScalabelFrame]:
    """The frames of a file in order; names that leave the folder of results raise."""
    contents = parse_json(path)
    if isinstance(contents, dict):
        frames = match_schema(contents, ScalabelFile, path)["frames"]
    else:
        frames = match_schema(contents, ScalabelFrames, path)
    if not frames:
        raise DataError(f"{path}: no frames in it")
    for frame in frames:
        video = frame.get("videoName") or ""
        if video != frames[0].get("videoName"):
            raise DataError(f"{path}: frame {frame['name']}: 'videoName' must be the same on all frames")
        for folder in ("images", "panomasksRGB"):
            join_inside(join_inside(out / folder, video, str(path)), f"{frame_name(frame['name'])}.png", str(path))
        if any(label.get("id") is None for label in frame.get("labels") or []):
            raise DataError(f"{path}: frame {frame['name']}: a label lacks 'id'")
    return sorted(frames, key=lambda frame: frame.get("frameIndex") or 0)


def _convert_scalabel_video(
    frames: list[ScalabelFrame], images: Path, out: Path, number_of: dict[str, int]
) -> tuple[dict[str, Any], dict[str, Any]]:
    name = str(frames[0].get("videoName"))
    tracks: dict[str, int] = {}
    categories: dict[int, int] = {}
    written = []
    for frame in frames:
        stem = frame_name(frame["name"])
        source = find_image(images / name, stem)
        image = read_image(source)
        height, width = image.shape[:2]
        ids = np.zeros((height, width), np.int32)
        for label in frame.get("labels") or []:
            track = tracks.setdefault(str(label["id"]), len(tracks) + 1)
            categories.setdefault(track, number_of[label["category"]])
            instance = {"id": label["id"], "segmentation": label.get("rle")}
            mask = instance_mask(instance, height, width, str(source))
            if (ids[mask] != 0).any():
                raise DataError(f"{source}: the mask of label {label['id']} overlaps another one")
            ids[mask] = track
        _save(Image.fromarray(image), out / "images" / name / f"{stem}.jpg")
        _save(Image.fromarray(ids_to_rgb(ids)), out / "panomasksRGB" / name / f"{stem}.png")
        written.append((stem, ids))
    return video_entries(name, written, categories)


def video_entries(
    name: str, frames: Sequence[tuple[str, np.ndarray]], categories: dict[int, int]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The two entries of a video in VIPSeg's json: in `videos` and in `annotations`.

    Args:
        name: of the video.
        frames: (stem, ids [H, W]) of each frame.
        categories: id -> category id.
    """
    images, annotations = [], []
    for stem, ids in frames:
        height, width = ids.shape
        images.append({"id": stem, "file_name": f"{stem}.png", "height": height, "width": width})
        segments = [
            {
                "id": value,
                "category_id": categories[value],
                "iscrowd": 0,
                "area": int((ids == value).sum()),
                "bbox": mask_to_box(ids == value),
            }
            for value in _values(ids)
        ]
        annotations.append({"image_id": stem, "file_name": f"{stem}.png", "segments_info": segments})
    return {"video_id": name, "images": images}, {"video_id": name, "annotations": annotations}


def _values(ids: np.ndarray) -> list[int]:
    return np.unique(ids[ids > 0]).tolist()


def _read_values(path: Path) -> np.ndarray:
    """int [H, W] values of an original mask, a grey PNG of 8 or 16 bit."""
    with open_image(path) as image:
        values = np.asarray(image)
    if values.ndim != 2:
        raise DataError(f"{path}: has {values.shape[2]} channels; masks of the original release have one")
    return values


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        if path.suffix == ".jpg":
            image.save(temporary, format="JPEG", quality=JPEG_QUALITY)
        else:
            image.save(temporary, format="PNG")


def _write_index(path: Path, entries: Sequence[tuple[Any, Any]], categories: list[dict[str, Any]]) -> None:
    videos, annotations = ([entry[side] for entry in entries] for side in (0, 1))
    contents = {"videos": videos, "categories": categories, "annotations": annotations}
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(contents), encoding="utf-8")
