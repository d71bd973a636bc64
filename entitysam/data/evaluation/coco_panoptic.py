"""COCO panoptic images as an evaluation set: every image is a video of one frame."""

from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from entitysam.data.evaluation.base import EvaluationSet
from entitysam.data.images import DataError
from entitysam.data.index import read_json
from entitysam.data.schemas import Category, Key, Side
from entitysam.data.training.coco import HINT, PanopticFiles
from entitysam.io.json_files import check_type, keep_other_keys
from entitysam.io.paths import join_inside
from entitysam.registry import DATASETS
from entitysam.structures import Video


class ImageEntry(TypedDict):
    id: Key
    file_name: str
    height: Side
    width: Side


class AnnotatedImage(TypedDict):
    image_id: Key
    file_name: str
    segments_info: list[dict[str, Any]]


@keep_other_keys
class CocoPanopticJson(TypedDict):
    """The annotation file; segments are checked when their image is evaluated."""

    images: list[ImageEntry]
    annotations: list[AnnotatedImage]
    categories: list[Category]


@DATASETS.register("coco_panoptic_images")
class CocoPanopticImages(EvaluationSet):
    """COCO panoptic, or any set in its layout (see `data.training.coco`).

    Args:
        root: folder of the data set.
        split: e.g. "val2017".

    Raises:
        DataError: files missing, or a json that contradicts itself or has wrong types.
        UnsafePathError: a name that leaves its folder.
    """

    def __init__(self, root: str | Path = "datasets/coco", split: str = "val2017") -> None:
        self.files = PanopticFiles(root, split)
        path = self.files.annotations
        contents = read_json(path, ("images", "annotations", "categories"), HINT)
        contents = check_type(contents, CocoPanopticJson, str(path), DataError)
        images = {image["id"]: image for image in contents["images"]}
        videos = [self._video(annotation, images) for annotation in contents["annotations"]]
        title = f"{root} {split}"
        super().__init__(title, "panoptic", contents["categories"], videos, is_images=True)

    def _video(self, annotation: AnnotatedImage, images: dict[Any, ImageEntry]) -> Video:
        number, mask = annotation["image_id"], annotation["file_name"]
        where = f"{self.files.annotations}: image {number}"
        if number not in images:
            raise DataError(f"{self.files.annotations}: {mask}: image_id {number} is not in 'images'")
        image = images[number]
        return Video(
            str(number),
            [join_inside(self.files.images, image["file_name"], where, follow_links=True)],
            image["height"],
            image["width"],
            {
                "key": number,
                "names": [mask],
                "mask_files": [join_inside(self.files.masks, mask, where, follow_links=True)],
                "segments": [annotation["segments_info"]],
            },
        )
