"""Checks of evaluation sets: every file is opened and compared with the annotations; see `data.prepare.checks.training`."""

from pathlib import Path
from typing import Any

import numpy as np

from entitysam.data.evaluation.base import EvaluationSet
from entitysam.data.evaluation.vipseg import VIPSegVideos
from entitysam.data.evaluation.vspw import VSPWVideos, read_labels
from entitysam.data.evaluation.ytvis import YouTubeVIS, mask_problems
from entitysam.data.images import DataError, read_id_map, read_image
from entitysam.data.index import match_schema
from entitysam.data.parallel import Progress, parallel_map
from entitysam.data.prepare.checks.training import CHECKS, Check, CheckReport, Total
from entitysam.data.schemas import Segment
from entitysam.data.training.coco import list_problems, map_problems, segment_record
from entitysam.structures import Video

OCCLUSIONS = (None, "no_occlusion", "slight_occlusion", "severe_occlusion")


def check_vipseg(
    root: Path, split: str, workers: int = 0, total: Total = lambda n: None, progress: Progress = lambda done: None
) -> CheckReport:
    """Checks a set in VIPSeg's layout: broken and missing files, sizes, every contradiction between json and PNG.

    Raises:
        DataError: json missing, or of another format.
        UnsafePathError: a file name that leaves its folder.
    """
    dataset = VIPSegVideos(root, split)
    known = {category["id"] for category in dataset.categories}
    jobs = [(*job, known) for job in _frames(dataset)]
    empty = [str(job[0]) for job in jobs if not job[2]]
    return _report(_check_panoptic, jobs, [], workers, total, progress, empty)


def check_vspw(
    root: Path, split: str, workers: int = 0, total: Total = lambda n: None, progress: Progress = lambda done: None
) -> CheckReport:
    """Checks a set in VSPW's layout: broken and missing files, sizes, unknown labels; raises as `check_vipseg`."""
    dataset = VSPWVideos(root, split)
    jobs = [
        (image, mask, (video.height, video.width))
        for video in dataset.videos
        for image, mask in zip(video.frame_files, video.annotation["mask_files"] or [None] * len(video))
    ]
    return _report(_check_labels, jobs, [], workers, total, progress)


def check_ytvis(
    root: Path, split: str, workers: int = 0, total: Total = lambda n: None, progress: Progress = lambda done: None
) -> CheckReport:
    """Checks YouTube-VIS or OVIS: frames, masks, lengths, categories, occlusion labels; raises as `check_vipseg`."""
    dataset = YouTubeVIS(root, split, check_masks=False)
    known = {category["id"] for category in dataset.categories}
    problems = [problem for video in dataset.videos for problem in _annotation_problems(video, known)]
    problems += mask_problems(dataset.videos, dataset.annotations)
    jobs = [(file, (video.height, video.width)) for video in dataset.videos for file in video.frame_files]
    return _report(_check_image, jobs, problems, workers, total, progress)


def _report(
    look: Any, jobs: list[Any], problems: list[str], workers: int, total: Total, progress: Progress, empty: Any = ()
) -> CheckReport:
    total(len(jobs))
    found = parallel_map(look, jobs, workers, progress)
    return CheckReport(len(jobs), problems + [problem for one in found for problem in one], list(empty))


def _frames(dataset: EvaluationSet) -> list[tuple[Path, Path, list[dict[str, Any]]]]:
    return [
        job
        for video in dataset.videos
        for job in zip(video.frame_files, video.annotation["mask_files"], video.annotation["segments"])
    ]


def _check_panoptic(job: tuple[Path, Path, list[dict[str, Any]], set[int]]) -> list[str]:
    image_file, mask_file, listed, known = job
    try:
        segments = [segment_record(segment) for segment in match_schema(listed, list[Segment], mask_file)]
        ids = read_id_map(mask_file)
    except DataError as error:
        return [str(error)]
    problems = [
        f"{mask_file}: {problem}" for problem in (*list_problems(segments, known), *map_problems(ids, segments))
    ]
    return problems + _check_image((image_file, ids.shape))


def _check_labels(job: tuple[Path, Path | None, tuple[int, int]]) -> list[str]:
    image_file, mask_file, size = job
    problems = []
    if mask_file is not None:
        try:
            labels = read_labels(mask_file)
        except DataError as error:
            return [str(error), *_check_image((image_file, size))]
        wrong = np.setdiff1d(labels, [*range(125), 255])
        problems = [f"{mask_file}: label {label} is not the label of a category" for label in wrong.tolist()]
        size = labels.shape
    return problems + _check_image((image_file, size))


def _check_image(job: tuple[Path, tuple[int, ...]]) -> list[str]:
    path, size = job
    try:
        read_image(path, (size[0], size[1]))
    except DataError as error:
        return [str(error)]
    return []


def _annotation_problems(video: Video, known: set[int]) -> list[str]:
    problems = []
    for annotation in video.annotation["instances"]:
        where = f"video {video.video_id}, annotation {annotation['id']}"
        shapes, occlusion = annotation.get("segmentations"), annotation.get("occlusion") or []
        category = annotation.get("category_id")
        if category not in list(known):  # a list: the category may be anything
            problems.append(f"{where}: category {category} is not in 'categories'")
        if not isinstance(shapes, list) or not isinstance(occlusion, list):
            problems.append(f"{where}: 'segmentations' and 'occlusion' must be lists")
            continue
        if len(shapes) != len(video):
            problems.append(f"{where}: {len(shapes)} masks for {len(video)} frames")
        problems += [f"{where}: occlusion '{label}' is unknown" for label in occlusion if label not in OCCLUSIONS]
    return problems


CHECKS |= {
    "vipseg": Check(check_vipseg, "datasets/VIPSeg_720P", "val"),
    "vspw": Check(check_vspw, "datasets/VSPW_480p", "val"),
    "ytvis_2019": Check(check_ytvis, "datasets/ytvis_2019", "valid"),
    "ytvis_2021": Check(check_ytvis, "datasets/ytvis_2021", "valid"),
    "ovis": Check(check_ytvis, "datasets/ovis", "valid"),
}
