"""COCO-style instance json: `coco_instances` and EntitySeg (Qi et al., High-Quality Entity Segmentation, ICCV 2023)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from entitysam.data.images import DataError, read_image
from entitysam.data.index import PackedRecords, raise_first, read_json, require_folder
from entitysam.data.training.coco import HINT
from entitysam.data.training.samples import ImageSample
from entitysam.registry import DATASETS


class InstanceJson:
    """Pictures whose entities are polygons or run-length codes.

    Args:
        image_folder: searched for each `file_name`; where that fails, for a file of that base name in any subfolder.
        annotations: one or several json files.

    Raises:
        DataError: files missing, or a json that contradicts itself.
    """

    def __init__(self, image_folder: Path, annotations: Sequence[Path]) -> None:
        self.image_folder = require_folder(image_folder, HINT)
        records: list[dict[str, Any]] = []
        for path in annotations:
            found, problems = read_instance_index(path)
            raise_first(problems, "instances")
            records += found
        self.records = PackedRecords(records)
        self._subfolders = [folder.name for folder in sorted(image_folder.iterdir()) if folder.is_dir()]

    def __len__(self) -> int:
        return len(self.records)

    def source(self, index: int) -> str:
        """The picture's file."""
        return str(self.find(self.records[index]["image"]))

    def load(self, index: int) -> ImageSample:
        """Reads one picture; where masks overlap, the smaller one is in front.

        Raises:
            DataError: broken or missing file, or sizes that differ; the message names the file.
        """
        record = self.records[index]
        path, size = self.find(record["image"]), (record["height"], record["width"])
        ids, categories = paint_instances(record, str(path))
        return ImageSample(read_image(path, size), ids, categories, str(path))

    def find(self, file_name: str) -> Path:
        """The picture's file; the name is taken as is where there is none, so that reading it says so."""
        plain = self.image_folder / file_name
        places = (self.image_folder / folder / Path(file_name).name for folder in self._subfolders)
        return plain if plain.is_file() else next((place for place in places if place.is_file()), plain)


@DATASETS.register("coco_instances")
class CocoInstances(InstanceJson):
    """root/<split>/*.jpg and root/annotations/instances_<split>.json; crowds are void. Raises as `InstanceJson`."""

    def __init__(self, root: str | Path = "datasets/coco", split: str = "train2017") -> None:
        super().__init__(Path(root) / split, [Path(root) / "annotations" / f"instances_{split}.json"])


@DATASETS.register("entityseg")
class EntitySeg(InstanceJson):
    """The EntitySeg release: its pictures below root/images and its json files in root/annotations.

    The release has three parts of the training annotations with all entities, entityseg_train_{01,02,03}.json, and
    the pictures in three archives (entity_01_11580, entity_02_11598, entity_03_10049), which may stay in their folders.
    Raises as `InstanceJson`.
    """

    def __init__(
        self,
        root: str | Path = "datasets/entityseg",
        annotations: Sequence[str] = ("entityseg_train_01.json", "entityseg_train_02.json", "entityseg_train_03.json"),
    ) -> None:
        super().__init__(Path(root) / "images", [Path(root) / "annotations" / name for name in annotations])


def read_instance_index(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """A COCO-style instance json as records {image, height, width, instances}, and what is wrong with it.

    Raises:
        DataError: no such file, or not such a json.
    """
    contents = read_json(path, ("images", "annotations"), HINT)
    try:
        return _records(path, contents)
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: an entry lacks {error}") from error


def _records(path: Path, contents: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    known = {category["id"] for category in contents.get("categories", [])}
    records = {
        image["id"]: {
            "image": image["file_name"],
            "height": int(image["height"]),
            "width": int(image["width"]),
            "instances": [],
        }
        for image in contents["images"]
    }
    problems = []
    for annotation in contents["annotations"]:
        where = f"{path}: annotation {annotation['id']}"
        category = annotation.get("category_id", -1)
        if annotation["image_id"] not in records:
            problems.append(f"{where}: image_id {annotation['image_id']} is not in 'images'")
        elif known and category not in known:
            problems.append(f"{where}: category {category} is not in 'categories'")
        elif not annotation.get("iscrowd", 0):
            instance = {
                "id": annotation["id"],
                "category_id": category,
                "segmentation": annotation["segmentation"],
            }
            records[annotation["image_id"]]["instances"].append(instance)
    return list(records.values()), problems


def paint_instances(record: dict[str, Any], source: str) -> tuple[np.ndarray, dict[int, int]]:
    """Paints the instances of a record, large ones first.

    Args:
        record: as `read_instance_index` gives it.
        source: for the message.

    Returns:
        int32 [H, W] ids 1..n and the category of each.

    Raises:
        DataError: a segmentation that is no polygon or run-length code of this size.
    """
    masks = [instance_mask(instance, record["height"], record["width"], source) for instance in record["instances"]]
    ids = np.zeros((record["height"], record["width"]), np.int32)
    for place in np.argsort([-mask.sum() for mask in masks], kind="stable"):
        ids[masks[place]] = place + 1
    categories = {place + 1: instance["category_id"] for place, instance in enumerate(record["instances"])}
    return ids, categories


def instance_mask(instance: dict[str, Any], height: int, width: int, source: str) -> np.ndarray:
    """bool [height, width] of polygons [[x, y, ...], ...] or of a run-length code, compressed or not.

    Raises:
        DataError: neither of them, or another size.
    """
    try:
        code = run_length_code(instance["segmentation"], height, width)
        if list(code["size"]) != [height, width]:
            raise ValueError(f"its size [height, width] is {code['size']}, the picture's {[height, width]}")
        return coco_mask.decode(code).astype(bool)
    except (TypeError, KeyError, ValueError) as error:
        raise DataError(f"{source}: annotation {instance['id']}: unusable segmentation: {error}") from error


def run_length_code(shape: Any, height: int, width: int) -> dict[str, Any]:
    """pycocotools' compressed code of polygons or of a code. It would take four numbers for a box: they are refused.

    Raises:
        TypeError, KeyError, ValueError: neither of them.
    """
    if isinstance(shape, dict):
        return coco_mask.frPyObjects(shape, *shape["size"]) if isinstance(shape["counts"], list) else shape
    if not shape or any(len(polygon) < 6 or len(polygon) % 2 for polygon in shape):
        raise ValueError("a polygon needs x and y of three points or more")
    return coco_mask.merge(coco_mask.frPyObjects(shape, height, width))
