"""COCO panoptic pictures as an evaluation set: every picture is a video of one frame."""

from pathlib import Path
from typing import Any

from entitysam.data.evaluation.base import EvaluationSet
from entitysam.data.images import DataError
from entitysam.data.index import read_json
from entitysam.data.training.coco import HINT, PanopticFiles
from entitysam.registry import DATASETS
from entitysam.structures import Video


@DATASETS.register("coco_panoptic_images")
class CocoPanopticImages(EvaluationSet):
    """COCO panoptic, or any set in its layout (see `data.training.coco`).

    Args:
        root: folder of the data set.
        split: e.g. "val2017".

    Raises:
        DataError: files missing, or a json that contradicts itself.
    """

    def __init__(self, root: str | Path = "datasets/coco", split: str = "val2017") -> None:
        self.files = PanopticFiles(root, split)
        contents = read_json(self.files.annotations, ("images", "annotations", "categories"), HINT)
        try:
            images = {image["id"]: image for image in contents["images"]}
            videos = [self._video(annotation, images) for annotation in contents["annotations"]]
        except (KeyError, TypeError) as error:
            raise DataError(f"{self.files.annotations}: an entry lacks {error}") from error
        title = f"{root} {split}"
        super().__init__(title, "panoptic", contents["categories"], videos, is_images=True)

    def _video(self, annotation: dict[str, Any], images: dict[Any, dict[str, Any]]) -> Video:
        number, mask = annotation["image_id"], annotation["file_name"]
        if number not in images:
            raise DataError(f"{self.files.annotations}: {mask}: image_id {number} is not in 'images'")
        image = images[number]
        return Video(
            str(number),
            [self.files.images / image["file_name"]],
            int(image["height"]),
            int(image["width"]),
            {
                "key": number,
                "names": [mask],
                "mask_files": [self.files.masks / mask],
                "segments": [annotation["segments_info"]],
            },
        )
