"""COCO panoptic images (Kirillov et al., Panoptic Segmentation, 2019; format: cocodataset.org/#format-data).

    root/<split>/*.jpg    root/annotations/panoptic_<split>.json    root/panoptic_<split>/*.png

The PNG folder may also be root/annotations/panoptic_<split>, where COCO's archive unpacks it.
"""

from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

from entitysam.data.images import read_id_map, read_image
from entitysam.data.index import PackedRecords, raise_first, read_typed, require_folder
from entitysam.data.schemas import CocoPanopticFile
from entitysam.data.training.samples import ImageSample, compact_ids
from entitysam.io.paths import join_inside
from entitysam.registry import DATASETS

HINT = "datasets/README.md says how to get the data and where to put it."


@DATASETS.register("coco_panoptic")
class CocoPanoptic:
    """Every segment is an entity, things and stuff; crowd segments are void.

    Args:
        root: folder of the data set.
        split: e.g. "train2017".
        files: keep the images whose file name matches this pattern, e.g. "bsds500_*".

    Raises:
        DataError: files missing, or a json that contradicts itself.
    """

    def __init__(self, root: str | Path = "datasets/coco", split: str = "train2017", files: str = "*") -> None:
        self.files = PanopticFiles(root, split)
        records, problems = self.files.read_index()
        raise_first(problems, f"coco --root {root} --split {split}")
        self.records = PackedRecords([record for record in records if fnmatch(record["image"], files)])

    def __len__(self) -> int:
        return len(self.records)

    def source(self, index: int) -> str:
        """File of the image."""
        return str(self.files.images / self.records[index]["image"])

    def load(self, index: int) -> ImageSample:
        """Reads one image and its segments.

        Raises:
            DataError: broken or missing file, or sizes that differ; the message names the file.
        """
        record = self.records[index]
        image_file, mask_file = self.files.images / record["image"], self.files.masks / record["mask"]
        ids = read_id_map(mask_file)
        image = read_image(image_file, ids.shape)
        entities = [segment for segment in record["segments"] if not segment["iscrowd"]]
        listed = np.array([segment["id"] for segment in entities], np.int64)
        categories = {position + 1: segment["category_id"] for position, segment in enumerate(entities)}
        return ImageSample(image, compact_ids(ids, listed), categories, str(image_file))


class PanopticFiles:
    """Where a split's files are, and its index.

    Attributes:
        images, masks: folders of the images and of the panoptic PNGs.
        annotations: the json.

    Raises:
        DataError: no folder of images.
    """

    def __init__(self, root: str | Path, split: str) -> None:
        root = Path(root)
        self.images = require_folder(root / split, HINT)
        self.annotations = root / "annotations" / f"panoptic_{split}.json"
        inside = root / "annotations" / f"panoptic_{split}"
        self.masks = inside if inside.is_dir() else root / f"panoptic_{split}"

    def read_index(self) -> tuple[list[dict[str, Any]], list[str]]:
        """The json as records {image, mask, segments}, and its problems; the PNGs are not opened.

        Raises:
            DataError: no such file, or not a COCO panoptic json.
            UnsafePathError: a file name that leaves its folder.
        """
        contents = self.read_json()
        require_folder(self.masks, HINT)
        images = {image["id"]: image for image in contents["images"]}
        known = {category["id"] for category in contents["categories"]}
        records, problems = [], []
        for annotation in contents["annotations"]:
            mask, image = annotation["file_name"], images.get(annotation["image_id"])
            join_inside(self.masks, mask, str(self.annotations), follow_links=True)
            if image is None:
                problems.append(f"{self.annotations}: {mask}: image_id {annotation['image_id']} is not in 'images'")
                continue
            segments = [segment_record(segment) for segment in annotation["segments_info"]]
            problems += [f"{self.annotations}: {mask}: {problem}" for problem in list_problems(segments, known)]
            join_inside(self.images, image["file_name"], str(self.annotations), follow_links=True)
            records.append({"image": image["file_name"], "mask": mask, "segments": segments})
        return records, problems

    def read_json(self) -> CocoPanopticFile:
        """The contents of the json; raises DataError as `read_index`."""
        return read_typed(self.annotations, CocoPanopticFile, HINT)


def segment_record(segment: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `segments_info` entry that training uses; `area` is -1 where it is not given."""
    return {
        "id": int(segment["id"]),
        "category_id": int(segment["category_id"]),
        "iscrowd": int(segment.get("iscrowd", 0)),
        "area": int(segment.get("area", -1)),
    }


def list_problems(segments: list[dict[str, Any]], known_categories: set[int]) -> list[str]:
    """Problems of one segment list: ids out of range or listed twice, unknown categories."""
    ids = [segment["id"] for segment in segments]
    problems = [f"segment {number} is outside 1..2^24-1" for number in ids if not 0 < number < 2**24]
    problems += [f"segment {number} is listed twice" for number in sorted({n for n in ids if ids.count(n) > 1})]
    return problems + [
        f"segment {segment['id']} has category {segment['category_id']}, which is not in 'categories'"
        for segment in segments
        if segment["category_id"] not in known_categories
    ]


def map_problems(ids: np.ndarray, segments: list[dict[str, Any]]) -> list[str]:
    """Contradictions between an id map [H, W] and its segment list: unlisted ids, ids without pixels, wrong areas."""
    found = dict(zip(*(array.tolist() for array in np.unique(ids, return_counts=True))))
    found.pop(0, None)
    listed = {segment["id"]: segment["area"] for segment in segments}
    problems = [f"id {number} is in the PNG but not in the json" for number in found if number not in listed]
    for number, area in listed.items():
        if number not in found:
            problems.append(f"segment {number} is in the json but has no pixels")
        elif area not in (-1, found[number]):
            problems.append(f"segment {number} has area {area} in the json, {found[number]} in the PNG")
    return problems
