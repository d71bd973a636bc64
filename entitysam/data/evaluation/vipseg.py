"""VIPSeg (Miao et al., CVPR 2022) as an evaluation set.

root/images/<video>/<frame>.jpg    root/panomasksRGB/<video>/<frame>.png    root/panoptic_gt_VIPSeg_<split>.json
"""

from collections import Counter
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from entitysam.data.evaluation.base import EvaluationSet, find_image
from entitysam.data.images import DataError
from entitysam.data.index import read_json
from entitysam.data.schemas import Category, Key, Side
from entitysam.data.training.coco import HINT
from entitysam.io.json_files import check_type, keep_other_keys
from entitysam.io.paths import join_inside
from entitysam.registry import DATASETS
from entitysam.structures import Video


class FrameSize(TypedDict):
    height: Side
    width: Side


class VideoSizes(TypedDict):
    video_id: Key
    images: list[FrameSize]


class AnnotatedFrame(TypedDict):
    file_name: str
    segments_info: list[dict[str, Any]]


class AnnotatedVideo(TypedDict):
    video_id: Key
    annotations: list[AnnotatedFrame]


@keep_other_keys
class VIPSegJson(TypedDict):
    """The annotation file; segments are checked when their video is evaluated."""

    videos: list[VideoSizes]
    annotations: list[AnnotatedVideo]
    categories: list[Category]


@DATASETS.register("vipseg")
class VIPSegVideos(EvaluationSet):
    """VIPSeg_720P, or any set in its layout.

    Args:
        root: folder of the data set.
        split: "train", "val" or "test".

    Raises:
        DataError: json missing, broken, with wrong types or without sizes; a video annotated twice.
        UnsafePathError: a name that leaves its folder.
    """

    def __init__(self, root: str | Path = "datasets/VIPSeg_720P", split: str = "val") -> None:
        self.root = Path(root)
        self.annotations = self.root / f"panoptic_gt_VIPSeg_{split}.json"
        contents = read_json(self.annotations, ("videos", "annotations", "categories"), HINT)
        contents = check_type(contents, VIPSegJson, str(self.annotations), DataError)
        sizes = {str(video["video_id"]): video["images"] for video in contents["videos"]}
        videos = [self._video(annotation, sizes) for annotation in contents["annotations"]]
        times = Counter(video.video_id for video in videos)
        twice = next((name for name, count in times.items() if count > 1), None)
        if twice is not None:
            raise DataError(f"{self.annotations}: video {twice} is annotated twice")
        super().__init__(f"{self.root} {split}", "panoptic", contents["categories"], videos)

    def _video(self, annotation: AnnotatedVideo, sizes: dict[str, list[FrameSize]]) -> Video:
        name, frames = str(annotation["video_id"]), annotation["annotations"]
        if not sizes.get(name):
            raise DataError(f"{self.annotations}: video {name} is not in 'videos'")
        where = f"{self.annotations}: video {name}"
        folder = join_inside(self.root / "panomasksRGB", name, where, follow_links=True)
        masks = [join_inside(folder, frame["file_name"], where, follow_links=True) for frame in frames]
        return Video(
            name,
            [find_image(self.root / "images" / name, mask.stem) for mask in masks],
            sizes[name][0]["height"],
            sizes[name][0]["width"],
            {
                "key": annotation["video_id"],
                "names": [f"{name}/{frame['file_name']}" for frame in frames],
                "mask_files": masks,
                "segments": [frame["segments_info"] for frame in frames],
            },
        )
