"""Writes a small COCO panoptic set for the data tests."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from entitysam.ops import ids_to_rgb

CATEGORIES = [{"id": 1, "name": "person", "isthing": 1}, {"id": 7, "name": "sky", "isthing": 0}]
LARGE = 5_000_001  # an id that needs all three bytes


def write_coco(root: Path, ids: np.ndarray | None = None, segments: list[dict] | None = None, count: int = 1) -> Path:
    """One to many images of one id map; by default a person (LARGE), a sky (12), a crowd (13) and void."""
    if ids is None:
        ids = np.zeros((40, 60), np.int32)
        ids[:20] = 12
        ids[10:30, 10:20] = LARGE
        ids[30:, 30:] = 13
    if segments is None:
        kinds = {12: (7, 0), LARGE: (1, 0), 13: (1, 1)}
        segments = [
            {"id": int(n), "category_id": kinds[n][0], "iscrowd": kinds[n][1], "area": int((ids == n).sum())}
            for n in np.unique(ids).tolist()
            if n
        ]
    rng = np.random.default_rng(0)
    for folder in ("train2017", "annotations", "panoptic_train2017"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    index = {"images": [], "annotations": [], "categories": CATEGORIES}
    for number in range(count):
        image = rng.integers(0, 255, (*ids.shape, 3), np.uint8)
        Image.fromarray(image).save(root / "train2017" / f"{number:03d}.jpg")
        Image.fromarray(ids_to_rgb(ids)).save(root / "panoptic_train2017" / f"{number:03d}.png")
        height, width = ids.shape
        index["images"].append({"id": number, "file_name": f"{number:03d}.jpg", "height": height, "width": width})
        index["annotations"].append({"image_id": number, "file_name": f"{number:03d}.png", "segments_info": segments})
    annotation_file(root).write_text(json.dumps(index))
    return root


def annotation_file(root: Path) -> Path:
    return root / "annotations" / "panoptic_train2017.json"


def edit_index(root: Path, change) -> None:
    """Rewrites the json after `change(index)`."""
    index = json.loads(annotation_file(root).read_text())
    change(index)
    annotation_file(root).write_text(json.dumps(index))
