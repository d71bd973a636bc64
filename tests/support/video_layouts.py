"""Small evaluation sets in the layouts of the benchmarks, with two moving squares on a background."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from entitysam.ops import ids_to_rgb, rle_encode

SIZE = (24, 40)
CATEGORIES = [{"id": 3, "name": "cat", "isthing": 1}, {"id": 5, "name": "sky", "isthing": 0}]


def id_maps(frames: int = 4, shift: int = 0) -> np.ndarray:
    """int32 [T, H, W]: 9 = upper half, 70000 and 4 = squares; the second square leaves after two frames."""
    ids = np.zeros((frames, *SIZE), np.int32)
    ids[:, :12] = 9
    for t in range(frames):
        ids[t, 8:16, 2 + 2 * t + shift : 12 + 2 * t + shift] = 70000
        if t < 2:
            ids[t, 16:22, 28 - t : 36 - t] = 4
    return ids


def write_image(path: Path, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)).save(path)


def segments(ids: np.ndarray) -> list[dict]:
    kinds = {9: 5, 70000: 3, 4: 3}
    return [
        {"id": int(n), "category_id": kinds[int(n)], "iscrowd": 0, "area": int((ids == n).sum())}
        for n in np.unique(ids)
        if n
    ]


def write_vipseg(root: Path, names=("a", "b"), frames: int = 4) -> Path:
    videos, annotations = [], []
    for name in names:
        listed = []
        for t, ids in enumerate(id_maps(frames)):
            write_image(root / "images" / name / f"{t:03d}.jpg")
            path = root / "panomasksRGB" / name / f"{t:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(ids_to_rgb(ids)).save(path)
            listed.append({"file_name": path.name, "image_id": path.stem, "segments_info": segments(ids)})
        images = [{"file_name": one["file_name"], "height": SIZE[0], "width": SIZE[1]} for one in listed]
        videos.append({"video_id": name, "images": images})
        annotations.append({"video_id": name, "annotations": listed})
    contents = {"videos": videos, "annotations": annotations, "categories": CATEGORIES}
    (root / "panoptic_gt_VIPSeg_val.json").write_text(json.dumps(contents))
    return root


def write_vspw(root: Path, names=("a", "b"), frames: int = 9) -> Path:
    """Labels: 0 others, 6 (category 5) above, 4 (category 3) the squares, 255 void in a corner."""
    for name in names:
        for t, ids in enumerate(id_maps(frames)):
            write_image(root / "data" / name / "origin" / f"{t:03d}.jpg")
            labels = np.select([ids == 9, ids > 0], [6, 4], 0).astype(np.uint8)
            labels[:2, :2] = 255
            path = root / "data" / name / "mask" / f"{t:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(labels).save(path)
    (root / "val.txt").write_text("\n".join(names))  # the last line without newline, as in the release
    return root


def write_ytvis(root: Path, frames: int = 4, occlusion: bool = False) -> Path:
    """Two videos with ids out of order; both squares of each are annotated."""
    videos, annotations = [], []
    for number, name in ((12, "clip_b"), (7, "clip_a")):
        files = [f"{name}/{t:05d}.jpg" for t in range(frames)]
        for file in files:
            write_image(root / "valid" / "JPEGImages" / file)
        videos.append({"id": number, "file_names": files, "height": SIZE[0], "width": SIZE[1], "length": frames})
        for value, category in ((70000, 3), (4, 5)):
            masks = [rle_encode(ids == value) if (ids == value).any() else None for ids in id_maps(frames)]
            areas = [None if mask is None else int((ids == value).sum()) for mask, ids in zip(masks, id_maps(frames))]
            entry = {"id": len(annotations) + 1, "video_id": number, "category_id": category, "iscrowd": 0}
            if occlusion:
                entry["occlusion"] = ["no_occlusion"] * frames
            annotations.append({**entry, "segmentations": masks, "areas": areas})
    contents = {"videos": videos, "annotations": annotations, "categories": CATEGORIES}
    (root / "valid.json").write_text(json.dumps(contents))
    return root


def write_entityseg(root: Path) -> Path:
    """Two images; one annotation is a polygon."""
    images, annotations = [], []
    for number, name in ((1, "x.jpg"), (2, "y.jpg")):
        write_image(root / "images" / "entity_01_11580" / name)
        images.append({"id": number, "file_name": name, "height": SIZE[0], "width": SIZE[1]})
        ids = id_maps(1)[0]
        for value in (70000, 9):
            mask = rle_encode(ids == value)
            entry = {"id": len(annotations) + 1, "image_id": number, "category_id": 1, "iscrowd": 0}
            annotations.append({**entry, "segmentation": mask, "area": int((ids == value).sum())})
    annotations[0]["segmentation"] = [[2, 8, 12, 8, 12, 16, 2, 16]]
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    contents = {"images": images, "annotations": annotations}
    (root / "annotations" / "entityseg_val_lr.json").write_text(json.dumps(contents))
    return root
