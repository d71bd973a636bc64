"""VIPSeg (Miao et al., CVPR 2022) as an evaluation set.

root/images/<video>/<frame>.jpg    root/panomasksRGB/<video>/<frame>.png    root/panoptic_gt_VIPSeg_<split>.json
"""

from pathlib import Path
from typing import Any

from entitysam.data.evaluation.base import EvaluationSet, find_image
from entitysam.data.images import DataError
from entitysam.data.index import read_json
from entitysam.data.training.coco import HINT
from entitysam.registry import DATASETS
from entitysam.structures import Video


@DATASETS.register("vipseg")
class VIPSegVideos(EvaluationSet):
    """VIPSeg_720P, or any set in its layout.

    Args:
        root: folder of the data set.
        split: "train", "val" or "test".

    Raises:
        DataError: json missing, broken, or without sizes; a video annotated twice.
    """

    def __init__(self, root: str | Path = "datasets/VIPSeg_720P", split: str = "val") -> None:
        self.root = Path(root)
        self.annotations = self.root / f"panoptic_gt_VIPSeg_{split}.json"
        contents = read_json(self.annotations, ("videos", "annotations", "categories"), HINT)
        try:
            sizes = {str(video["video_id"]): _sizes(video) for video in contents["videos"]}
            videos = [self._video(annotation, sizes) for annotation in contents["annotations"]]
        except (KeyError, TypeError) as error:
            raise DataError(f"{self.annotations}: an entry lacks {error}") from error
        names = [video.video_id for video in videos]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise DataError(f"{self.annotations}: video {twice} is annotated twice")
        super().__init__(f"{self.root} {split}", "panoptic", contents["categories"], videos)

    def _video(self, annotation: dict[str, Any], sizes: dict[str, list[tuple[int, int]]]) -> Video:
        name, frames = str(annotation["video_id"]), annotation["annotations"]
        if not sizes.get(name):
            raise DataError(f"{self.annotations}: video {name} is not in 'videos'")
        masks = [frame["file_name"] for frame in frames]
        height, width = sizes[name][0]
        return Video(
            name,
            [find_image(self.root / "images" / name, Path(mask).stem) for mask in masks],
            height,
            width,
            {
                "key": annotation["video_id"],
                "names": [f"{name}/{mask}" for mask in masks],
                "mask_files": [self.root / "panomasksRGB" / name / mask for mask in masks],
                "segments": [frame["segments_info"] for frame in frames],
            },
        )


def _sizes(video: dict[str, Any]) -> list[tuple[int, int]]:
    return [(int(image["height"]), int(image["width"])) for image in video["images"]]
