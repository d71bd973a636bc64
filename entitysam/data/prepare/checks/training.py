"""Checks of training sets: every file is opened, every segment compared with the annotations."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from entitysam.data.images import DataError, read_id_map, read_image
from entitysam.data.parallel import Progress, parallel_map
from entitysam.data.training.coco import PanopticFiles, map_problems
from entitysam.data.training.instances import InstanceJson, instance_mask, read_instance_index


@dataclass
class CheckReport:
    """Result of a check.

    Attributes:
        checked: number of images.
        problems: one line each, the file first.
        empty: files without an entity (none listed, or crowds only); they become clips without targets.
    """

    checked: int
    problems: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)


Total = Callable[[int], None]  # called once with the number of images to come


def check_coco(
    root: Path, split: str, workers: int = 0, total: Total = lambda n: None, progress: Progress = lambda done: None
) -> CheckReport:
    """Checks COCO panoptic data: broken and missing files, sizes, and every contradiction between json and PNG.

    Raises:
        DataError: folder or json missing, or a json of another format.
        UnsafePathError: a file name that leaves its folder.
    """
    files = PanopticFiles(root, split)
    records, problems = files.read_index()
    jobs = [(files.images / record["image"], files.masks / record["mask"], record["segments"]) for record in records]
    total(len(jobs))
    found = parallel_map(_check_panoptic, jobs, workers, progress)
    empty = [str(job[0]) for job in jobs if all(segment["iscrowd"] for segment in job[2])]
    return CheckReport(len(jobs), problems + [problem for one in found for problem in one], empty)


def _check_panoptic(job: tuple[Path, Path, list[dict[str, Any]]]) -> list[str]:
    image_file, mask_file, segments = job
    try:
        ids = read_id_map(mask_file)
    except DataError as error:
        return [str(error), *_image_problems(image_file, None)]
    problems = [f"{mask_file}: {problem}" for problem in map_problems(ids, segments)]
    return problems + _image_problems(image_file, ids.shape)


def check_instances(
    root: Path, split: str, workers: int = 0, total: Total = lambda n: None, progress: Progress = lambda done: None
) -> CheckReport:
    """Checks COCO-style instances, root/<split> and root/annotations/instances_<split>.json, as `check_coco`."""
    return _check_instance_json(
        root / split, root / "annotations" / f"instances_{split}.json", workers, total, progress
    )


def check_entityseg(
    root: Path, split: str, workers: int = 0, total: Total = lambda n: None, progress: Progress = lambda done: None
) -> CheckReport:
    """Checks one part of EntitySeg, root/annotations/<split>.json, as `check_coco`."""
    return _check_instance_json(root / "images", root / "annotations" / f"{split}.json", workers, total, progress)


def _check_instance_json(
    images: Path, annotations: Path, workers: int, total: Total, progress: Progress
) -> CheckReport:
    index = read_instance_index(annotations)
    find = InstanceJson(images, []).find
    jobs = [(find(record["image"]), record) for record in index.records]
    total(len(jobs))
    found = parallel_map(_check_instances, jobs, workers, progress)
    empty = [str(path) for path, record in jobs if not record["instances"]]
    problems = index.problems + index.left_out
    return CheckReport(len(jobs), problems + [problem for one in found for problem in one], empty)


def _check_instances(job: tuple[Path, dict[str, Any]]) -> list[str]:
    path, record = job
    problems = _image_problems(path, (record["height"], record["width"]))
    if problems:  # without the image the size of the json is not to be trusted
        return problems
    for instance in record["instances"]:
        try:
            if not np.any(instance_mask(instance, record["height"], record["width"], str(path))):
                problems.append(f"{path}: annotation {instance['id']} has no pixels")
        except DataError as error:
            problems.append(str(error))
    return problems


def _image_problems(path: Path, size: tuple[int, int] | None) -> list[str]:
    try:
        read_image(path, size)
    except DataError as error:
        return [str(error)]
    return []


@dataclass(frozen=True)
class Check:
    """A check with its default folder and split."""

    run: Callable[..., CheckReport]
    root: str
    split: str


# Names of `tools/prepare_data.py check NAME`.
CHECKS = {
    "coco": Check(check_coco, "datasets/coco", "train2017"),
    "instances": Check(check_instances, "datasets/coco", "train2017"),
    "entityseg": Check(check_entityseg, "datasets/entityseg", "entityseg_train_01"),
}
