"""Makes sets in VIPSeg_720P's layout: from VIPSeg's original release, and from Scalabel labels (BDD100K MOTS).

The original release: root/imgs/<video>/<frame>.jpg, root/panomasks/<video>/<frame>.png, root/{train,val,test}.txt. A
mask's value v says: 0 = void; up to 124 stuff of category v - 1; above, thing v % 100 of category v // 100 - 1.
"""

import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from entitysam.data.categories import read_categories
from entitysam.data.evaluation.base import find_image
from entitysam.data.images import DataError, read_image
from entitysam.data.index import require_folder
from entitysam.data.parallel import Progress, parallel_map
from entitysam.data.training.coco import HINT
from entitysam.data.training.instances import instance_mask
from entitysam.ops import ids_to_rgb, mask_to_box

HEIGHT = 720
JPEG_QUALITY = 95
LAST_STUFF = 124  # greatest value of a stuff pixel in the original masks


def convert_vipseg(
    root: Path, out: Path, splits: Sequence[str], workers: int = 0, progress: Progress = lambda done: None
) -> int:
    """Writes the 720P form: height 720, width int(720 * w / h), pictures bilinear, masks nearest.

    Ids are the values of the original masks, which say the category and keep over a video. Videos that are complete
    are not written again.

    Returns:
        number of videos.

    Raises:
        DataError: a file of the release is missing or broken; a value stands for no category.
    """
    require_folder(root / "panomasks", HINT)
    lists = {split: _read_list(root / f"{split}.txt") for split in splits}
    names = [name for listed in lists.values() for name in listed]
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
        picture = out / "images" / name / f"{path.stem}.jpg"
        if not picture.is_file():
            pixels = Image.fromarray(read_image(find_image(root / "imgs" / name, path.stem)))
            _save(pixels.resize(size, Image.Resampling.BILINEAR), picture)
        frames.append((path.stem, ids))
        _save(Image.fromarray(ids_to_rgb(ids)), out / "panomasksRGB" / name / f"{path.stem}.png")
    return video_entries(name, frames, {v: vipseg_category(v, name) for _, i in frames for v in _values(i)})


def vipseg_category(value: int, name: str) -> int:
    """Category id 0..123 of a value > 0 in an original mask.

    Raises:
        DataError: it stands for none.
    """
    category = (value if value <= LAST_STUFF else value // 100) - 1
    if not 0 <= category < LAST_STUFF:
        raise DataError(f"video {name}: mask value {value} stands for no category")
    return category


def convert_scalabel(labels: Path, images: Path, out: Path, split: str) -> int:
    """Writes the videos of Scalabel files (one json of frames with run-length masks per video) in VIPSeg's layout.

    Track ids become 1, 2, ... in order of first appearance, category names ids 0, 1, ... in alphabetic order.

    Returns:
        number of videos.

    Raises:
        DataError: a file is missing or broken, a label has no mask, or masks of a frame overlap.
    """
    files = sorted(require_folder(labels, HINT).glob("*.json"))
    if not files:
        raise DataError(f"{labels}: no json files")
    contents = [_read_frames(path) for path in files]
    names = sorted({label["category"] for frames in contents for frame in frames for label in frame["labels"]})
    number_of = {name: number for number, name in enumerate(names)}
    entries = [_convert_scalabel_video(frames, images, out, number_of) for frames in contents]
    categories = [{"id": number, "name": name, "isthing": 1} for name, number in number_of.items()]
    _write_index(out / f"panoptic_gt_VIPSeg_{split}.json", entries, categories)
    return len(entries)


def _read_frames(path: Path) -> list[dict[str, Any]]:
    try:
        contents = json.loads(path.read_bytes())
        frames = contents["frames"] if isinstance(contents, dict) else contents
        for frame in frames:
            frame["labels"] = frame.get("labels") or []
            _ = frame["name"], frame["videoName"], [(label["id"], label["category"]) for label in frame["labels"]]
        return sorted(frames, key=lambda frame: frame.get("frameIndex", 0))
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not a Scalabel file ({error!r})") from error


def _convert_scalabel_video(
    frames: list[dict[str, Any]], images: Path, out: Path, number_of: dict[str, int]
) -> tuple[dict[str, Any], dict[str, Any]]:
    name = frames[0]["videoName"]
    tracks: dict[str, int] = {}
    categories: dict[int, int] = {}
    written = []
    for frame in frames:
        stem = Path(frame["name"]).stem
        source = find_image(images / name, stem)
        picture = read_image(source)
        height, width = picture.shape[:2]
        ids = np.zeros((height, width), np.int32)
        for label in frame["labels"]:
            track = tracks.setdefault(str(label["id"]), len(tracks) + 1)
            categories.setdefault(track, number_of[label["category"]])
            instance = {"id": label["id"], "segmentation": label.get("rle")}
            mask = instance_mask(instance, height, width, str(source))
            if (ids[mask] != 0).any():
                raise DataError(f"{source}: the mask of label {label['id']} overlaps another one")
            ids[mask] = track
        _save(Image.fromarray(picture), out / "images" / name / f"{stem}.jpg")
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
    try:
        with Image.open(path) as image:
            values = np.asarray(image)
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise DataError(f"{path}: not a readable picture ({error})") from error
    if values.ndim != 2:
        raise DataError(f"{path}: has {values.shape[2]} channels; masks of the original release have one")
    return values


def _read_list(path: Path) -> list[str]:
    if not path.is_file():
        raise DataError(f"{path}: no such file. {HINT}")
    return path.read_text(encoding="utf-8").split()


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_file = path.with_name(f".{path.name}.part")
    if path.suffix == ".jpg":
        image.save(partial_file, format="JPEG", quality=JPEG_QUALITY)
    else:
        image.save(partial_file, format="PNG")
    os.replace(partial_file, path)


def _write_index(path: Path, entries: Sequence[tuple[Any, Any]], categories: list[dict[str, Any]]) -> None:
    videos, annotations = ([entry[side] for entry in entries] for side in (0, 1))
    partial_file = path.with_name(f".{path.name}.part")
    partial_file.write_text(json.dumps({"videos": videos, "categories": categories, "annotations": annotations}))
    os.replace(partial_file, path)
