"""COCO-style instance json: `coco_instances` and EntitySeg (Qi et al., High-Quality Entity Segmentation, ICCV 2023)."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from entitysam.data.images import DataError, read_image
from entitysam.data.index import PackedRecords, raise_first, read_typed, require_folder
from entitysam.data.masks import MaskError, check_mask, read_mask
from entitysam.data.schemas import InstanceAnnotation, InstanceFile
from entitysam.data.training.coco import HINT
from entitysam.data.training.samples import ImageSample
from entitysam.io.paths import join_inside
from entitysam.ops import rle_decode
from entitysam.registry import DATASETS

logger = logging.getLogger(__name__)


class InstanceJson:
    """Images whose entities are polygons or run-length codes.

    An annotation whose mask cannot be used is left out with a warning if it has a box, so that one bad polygon does not
    cost the file; `tools/prepare_data.py check` lists them.

    Args:
        image_folder: searched for each `file_name`; where that fails, for a file of that base name in any subfolder.
        annotations: one or several json files.

    Raises:
        DataError: files missing, or a json that contradicts itself.
        UnsafePathError: a file name that leaves its folder.
    """

    def __init__(self, image_folder: Path, annotations: Sequence[Path]) -> None:
        self.image_folder = require_folder(image_folder, HINT)
        records: list[dict[str, Any]] = []
        for path in annotations:
            index = read_instance_index(path)
            raise_first(index.problems, "instances")
            if index.left_out:
                logger.warning("%s (%d annotations left out)", index.left_out[0], len(index.left_out))
            records += index.records
        self.records = PackedRecords(records)
        self._subfolders = [folder.name for folder in sorted(image_folder.iterdir()) if folder.is_dir()]

    def __len__(self) -> int:
        return len(self.records)

    def source(self, index: int) -> str:
        """File of the image."""
        return str(self.find(self.records[index]["image"]))

    def load(self, index: int) -> ImageSample:
        """Reads one image; where masks overlap, the smaller one is in front.

        Raises:
            DataError: broken or missing file, or sizes that differ; the message names the file.
        """
        record = self.records[index]
        path, size = self.find(record["image"]), (record["height"], record["width"])
        image = read_image(path, size)  # first: it also shows whether the json's size is true
        ids, categories = paint_instances(record, str(path))
        return ImageSample(image, ids, categories, str(path))

    def find(self, file_name: str) -> Path:
        """File of an image; where there is none, its place in the image folder, so that reading it raises with it."""
        plain = join_inside(self.image_folder, file_name, str(self.image_folder), follow_links=True)
        places = (self.image_folder / folder / plain.name for folder in self._subfolders)
        return plain if plain.is_file() else next((place for place in places if place.is_file()), plain)


@DATASETS.register("coco_instances")
class CocoInstances(InstanceJson):
    """`root/<split>/*.jpg` and `root/annotations/instances_<split>.json`; crowds are void. Raises as `InstanceJson`."""

    def __init__(self, root: str | Path = "datasets/coco", split: str = "train2017") -> None:
        super().__init__(Path(root) / split, [Path(root) / "annotations" / f"instances_{split}.json"])


@DATASETS.register("entityseg")
class EntitySeg(InstanceJson):
    """The EntitySeg release: images below root/images, json files in root/annotations.

    The training annotations with all entities are three files, entityseg_train_{01,02,03}.json. The images are three
    archives (entity_01_11580, entity_02_11598, entity_03_10049), which may stay in their folders. Raises as
    `InstanceJson`.
    """

    def __init__(
        self,
        root: str | Path = "datasets/entityseg",
        annotations: Sequence[str] = ("entityseg_train_01.json", "entityseg_train_02.json", "entityseg_train_03.json"),
    ) -> None:
        super().__init__(Path(root) / "images", [Path(root) / "annotations" / name for name in annotations])


@dataclass
class InstanceIndex:
    """A COCO-style instance json.

    Attributes:
        records: {image, height, width, instances: [{id, category_id, segmentation}]} of every image, crowds left out.
        problems: contradictions and masks that cannot be used, a line each.
        left_out: annotations with a box whose mask cannot be used, a line each; they are not in `records`.
    """

    records: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def read_instance_index(path: Path) -> InstanceIndex:
    """Reads a COCO-style instance json and checks every mask.

    Raises:
        DataError: no such file, or not such a json.
        UnsafePathError: a file name that leaves its folder.
    """
    contents: InstanceFile = read_typed(path, InstanceFile, HINT)
    known = {category["id"] for category in contents.get("categories", [])}
    records: dict[Any, dict[str, Any]] = {}
    for image in contents["images"]:
        join_inside("", image["file_name"], f"{path}: image {image['id']}", follow_links=True)
        size = {"height": image["height"], "width": image["width"]}
        records[image["id"]] = {"image": image["file_name"], **size, "instances": []}
    index = InstanceIndex(list(records.values()))
    for annotation in contents["annotations"]:
        _add_annotation(index, records, annotation, known, f"{path}: annotation {annotation['id']}")
    return index


def _add_annotation(
    index: InstanceIndex, records: dict[Any, Any], annotation: InstanceAnnotation, known: set[int], where: str
) -> None:
    record, category = records.get(annotation["image_id"]), annotation.get("category_id", -1)
    if record is None:
        index.problems.append(f"{where}: image_id {annotation['image_id']} is not in 'images'")
    elif known and category not in known:
        index.problems.append(f"{where}: category {category} is not in 'categories'")
    elif not annotation.get("iscrowd", 0):
        instance = {"id": annotation["id"], "category_id": category, "segmentation": annotation["segmentation"]}
        try:
            check_mask(instance["segmentation"], record["height"], record["width"])
            record["instances"].append(instance)
        except MaskError as error:
            problem = f"{where} of {record['image']}: unusable segmentation: {error}"
            (index.left_out if annotation.get("bbox") else index.problems).append(problem)


def paint_instances(record: dict[str, Any], source: str) -> tuple[np.ndarray, dict[int, int]]:
    """Paints the instances of a record, large ones first.

    Args:
        record: of `InstanceIndex`.
        source: start of the error messages.

    Returns:
        int32 [H, W] ids 1..n and the category of each.

    Raises:
        DataError: a segmentation that cannot be used.
    """
    ids = np.zeros((record["height"], record["width"]), np.int32)
    masks = [instance_mask(instance, record["height"], record["width"], source) for instance in record["instances"]]
    for position in np.argsort([-int(mask.sum()) for mask in masks], kind="stable"):
        ids[masks[position]] = position + 1
    return ids, {position + 1: instance["category_id"] for position, instance in enumerate(record["instances"])}


def instance_mask(instance: dict[str, Any], height: int, width: int, source: str) -> np.ndarray:
    """bool [height, width] of an instance's polygons or run-length code.

    Raises:
        DataError: neither of them, or another size.
    """
    try:
        return rle_decode(read_mask(instance["segmentation"], height, width))
    except MaskError as error:
        raise DataError(f"{source}: annotation {instance['id']}: unusable segmentation: {error}") from error
