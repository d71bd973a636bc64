"""YouTube-VIS (Yang et al., ICCV 2019), OVIS (Qi et al., IJCV 2022) and EntitySeg (Qi et al., ICCV 2023) to evaluate on.

    root/<split>/JPEGImages/<video>/<frame>.jpg (YouTube-VIS) or root/<split>/<video>/<frame>.jpg (OVIS)
    root/<split>.json or root/annotations/<split>.json

The official annotations of their validation and test sets are not public: without `annotations` in the json,
predictions can be written for the benchmark's server, and nothing is measured.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from typing_extensions import NotRequired, TypedDict

from entitysam.data.categories import read_categories
from entitysam.data.evaluation.base import EvaluationSet
from entitysam.data.images import DataError
from entitysam.data.index import raise_first, read_json
from entitysam.data.masks import MaskError, check_mask
from entitysam.data.schemas import Category, Key, Side
from entitysam.data.training.coco import HINT
from entitysam.data.training.instances import InstanceJson
from entitysam.io.json_files import check_type, keep_other_keys
from entitysam.io.paths import join_inside
from entitysam.registry import DATASETS
from entitysam.structures import Video


class VideoEntry(TypedDict):
    id: Key
    file_names: list[str]
    height: Side
    width: Side


@keep_other_keys
class VideoAnnotation(TypedDict):
    """Further keys are checked when the video is evaluated."""

    id: Key
    video_id: Key


@keep_other_keys
class YouTubeVISJson(TypedDict):
    videos: list[VideoEntry]
    annotations: NotRequired[list[VideoAnnotation] | None]
    categories: NotRequired[list[Category] | None]


class ImageEntry(TypedDict):
    id: Key
    file_name: str
    height: Side
    width: Side


@keep_other_keys
class ImageAnnotation(TypedDict):
    """Further keys are checked when the image is evaluated."""

    id: Key
    image_id: Key


@keep_other_keys
class EntitySegJson(TypedDict):
    images: list[ImageEntry]
    annotations: list[ImageAnnotation]


@DATASETS.register("ytvis")
class YouTubeVIS(EvaluationSet):
    """YouTube-VIS 2019, 2021 or OVIS.

    Args:
        root: folder of the data set.
        split: e.g. "valid".
        categories: list below `configs/categories` for a json without categories, e.g. "ovis".
        check_masks: raise where a mask cannot be used.

    Raises:
        DataError: json missing, broken, with wrong types, or with annotations of videos that it does not have.
        UnsafePathError: a name that leaves its folder.
    """

    def __init__(
        self, root: str | Path, split: str = "valid", categories: str = "ytvis_2019", check_masks: bool = True
    ) -> None:
        root = Path(root)
        inside = root / split / "JPEGImages"
        self.images = inside if inside.is_dir() else root / split
        plain = root / f"{split}.json"
        self.annotations = plain if plain.is_file() else root / "annotations" / f"{split}.json"
        contents = read_json(self.annotations, ("videos",), HINT)
        contents = check_type(contents, YouTubeVISJson, str(self.annotations), DataError)
        annotations = contents.get("annotations") or []
        videos = [self._video(video) for video in contents["videos"]]
        _attach(videos, annotations, "video_id", self.annotations)
        if check_masks:
            raise_first(mask_problems(videos, self.annotations), f"ytvis_2019 --root {root} --split {split}")
        known = contents.get("categories") or read_categories(categories)
        title = f"{root} {split}"
        super().__init__(title, "instances", known, videos, has_truth=bool(annotations))

    def _video(self, video: VideoEntry) -> Video:
        where = f"{self.annotations}: video {video['id']}"
        files = [join_inside(self.images, name, where, follow_links=True) for name in video["file_names"]]
        annotation: dict[str, Any] = {"key": video["id"], "length": len(files), "instances": []}
        return Video(str(video["id"]), files, video["height"], video["width"], annotation)


@DATASETS.register("entityseg_images")
class EntitySegImages(EvaluationSet):
    """EntitySeg's validation images (layout: `data.training.instances.EntitySeg`); every image is a video of one frame.

    Args:
        root: folder of the data set.
        split: name of the json without suffix; `entityseg_val_lr` is the low-resolution set of the papers' AP_L^e.

    Raises:
        DataError: files missing, or a json that contradicts itself or has wrong types.
        UnsafePathError: a name that leaves its folder.
    """

    def __init__(self, root: str | Path = "datasets/entityseg", split: str = "entityseg_val_lr") -> None:
        path = Path(root) / "annotations" / f"{split}.json"
        contents = read_json(path, ("images", "annotations"), HINT)
        contents = check_type(contents, EntitySegJson, str(path), DataError)
        files = InstanceJson(Path(root) / "images", [])
        videos = []
        for image in contents["images"]:
            join_inside(files.image_folder, image["file_name"], f"{path}: image {image['id']}", follow_links=True)
            annotation: dict[str, Any] = {"key": image["id"], "length": 1, "instances": []}
            place = [files.find(image["file_name"])]
            videos.append(Video(str(image["id"]), place, image["height"], image["width"], annotation))
        _attach(videos, contents["annotations"], "image_id", path)
        raise_first(mask_problems(videos, path), f"entityseg --root {root} --split {split}")
        categories = [{"id": 1, "name": "entity", "isthing": 1}]
        super().__init__(f"{root} {split}", "instances", categories, videos, is_images=True)


def _attach(videos: list[Video], annotations: list[dict[str, Any]], key: str, path: Path) -> None:
    """Gives every video its annotations, in file order."""
    by_key = {video.annotation["key"]: video for video in videos}
    for annotation in annotations:
        video = by_key.get(annotation[key])
        if video is None:
            raise DataError(f"{path}: annotation {annotation['id']}: {key} {annotation[key]} is not in the file")
        video.annotation["instances"].append(annotation)


def mask_problems(videos: Sequence[Video], path: Path) -> list[str]:
    """Masks of the annotations from `path` that cannot be used, a line each."""
    problems = []
    for video in videos:
        for annotation in video.annotation["instances"]:
            shapes = annotation.get("segmentations", [annotation.get("segmentation")])
            for frame, shape in enumerate(shapes if isinstance(shapes, list) else []):
                try:
                    if shape is not None:
                        check_mask(shape, video.height, video.width)
                except MaskError as error:
                    where = f"{path}: video {video.video_id}, annotation {annotation['id']}, frame {frame}"
                    problems.append(f"{where}: unusable segmentation: {error}")
    return problems
