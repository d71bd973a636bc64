"""Panoptic videos in VIPSeg's layout (Miao et al., CVPR 2022) as training clips of consecutive frames.

root/images/<video>/<frame>.jpg    root/panomasksRGB/<video>/<frame>.png    root/panoptic_gt_VIPSeg_<split>.json
"""

from pathlib import Path
from typing import Any

import numpy as np

from entitysam.data.images import DataError, read_id_map, read_image
from entitysam.data.index import PackedRecords, raise_first, read_typed, require_folder
from entitysam.data.schemas import VipsegFile
from entitysam.data.training.coco import HINT, list_problems, segment_record
from entitysam.data.training.samples import VideoSample, compact_ids
from entitysam.io.paths import join_inside
from entitysam.registry import DATASETS, ConfigError


@DATASETS.register("panoptic_videos")
class PanopticVideos:
    """Every clip of `num_frames` frames, `stride` apart, of every video; each start frame is a sample of its own.

    Args:
        root: folder of the data set.
        split: e.g. "train".
        num_frames: T.
        stride: distance between the frames of a clip.

    Raises:
        DataError: files missing, a json that contradicts itself, or no video long enough.
        UnsafePathError: a file name that leaves its folder.
        ConfigError: num_frames or stride below 1.
    """

    def __init__(self, root: str | Path, split: str = "train", num_frames: int = 8, stride: int = 1) -> None:
        if num_frames < 1 or stride < 1:
            raise ConfigError(f"panoptic_videos: num_frames {num_frames} and stride {stride} must be at least 1")
        self.root, self.num_frames, self.stride = Path(root), num_frames, stride
        self.masks = require_folder(self.root / "panomasksRGB", HINT)
        annotations = self.root / f"panoptic_gt_VIPSeg_{split}.json"
        videos, problems = read_video_index(annotations)
        raise_first(problems, f"vipseg --root {root} --split {split}")
        self.videos = PackedRecords(videos)
        span = (num_frames - 1) * stride
        starts = [(i, start) for i, video in enumerate(videos) for start in range(len(video["frames"]) - span)]
        if not starts:
            raise DataError(f"{annotations}: no video has the {span + 1} frames that a clip spans")
        self.starts = np.array(starts)

    def __len__(self) -> int:
        return len(self.starts)

    def source(self, index: int) -> str:
        """File of the clip's first frame."""
        video_index, start = self.starts[index]
        video = self.videos[int(video_index)]
        return str(self._image_file(video["video_id"], video["frames"][start]["name"]))

    def load(self, index: int) -> VideoSample:
        """Reads one clip.

        Raises:
            DataError: broken or missing file, or sizes that differ; the message names the file.
        """
        video_index, start = self.starts[index]
        video = self.videos[int(video_index)]
        frames = video["frames"][start : start + self.num_frames * self.stride : self.stride]
        ids = [read_id_map(self.masks / video["video_id"] / f"{frame['name']}.png") for frame in frames]
        files = [self._image_file(video["video_id"], frame["name"]) for frame in frames]
        images = [read_image(file, ids[0].shape) for file in files]
        different = next((file for file, one in zip(files, ids) if one.shape != ids[0].shape), None)
        if different is not None:
            raise DataError(f"{different}: another size than the video's first frame")
        category_of = {
            segment["id"]: segment["category_id"]
            for frame in reversed(frames)  # the first frame that lists an entity gives its category
            for segment in frame["segments"]
            if not segment["iscrowd"]
        }
        listed = np.array(sorted(category_of), np.int64)
        categories = {place + 1: category_of[number] for place, number in enumerate(listed.tolist())}
        return VideoSample(np.stack(images), compact_ids(np.stack(ids), listed), categories, str(files[0]))

    def _image_file(self, video_id: str, name: str) -> Path:
        jpeg = self.root / "images" / video_id / f"{name}.jpg"
        return jpeg if jpeg.is_file() or not jpeg.with_suffix(".png").is_file() else jpeg.with_suffix(".png")


def read_video_index(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """A VIPSeg json as records {video_id, frames: [{name, segments}]}, and its problems.

    Raises:
        DataError: no such file, or not such a json.
        UnsafePathError: a file name that leaves its folder.
    """
    contents: VipsegFile = read_typed(path, VipsegFile, HINT)
    known = {category["id"] for category in contents["categories"]}
    videos: list[dict[str, Any]] = []
    problems: list[str] = []
    for annotation in contents["annotations"]:
        video_id, frames = str(annotation["video_id"]), []
        for frame in annotation["annotations"]:
            file = join_inside(video_id, frame["file_name"], str(path), follow_links=True)
            join_inside("", str(file), str(path), follow_links=True)  # the video's id is also a folder
            segments = [segment_record(segment) for segment in frame["segments_info"]]
            problems += [f"{path}: {file}: {problem}" for problem in list_problems(segments, known)]
            frames.append({"name": file.stem, "segments": segments})
        videos.append({"video_id": video_id, "frames": frames})
    return videos, problems
