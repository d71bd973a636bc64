"""Base class of evaluation sets. A reader lists the videos of a benchmark; pixels are read when needed.

| annotation format | `Video.annotation` | readers |
| --- | --- | --- |
| all | `key`: id as the benchmark's files have it (a number, or a text as `Video.video_id`) | |
| panoptic | `names`: PNG of each frame, relative to the folder of predictions; `mask_files`: annotated id maps; `segments`: the JSON's `segments_info` per frame, unchanged; `read`: reads one of `mask_files`, where they are no RGB PNGs | vipseg, coco_panoptic_images, id_maps |
| semantic | `names`, `mask_files`: annotated label maps | vspw |
| tracks | `frames`: `detections.records.FrameRecord` of each frame; `step`: distance of the frames in the video | tracks, panoptic_tracks |
| instances | `length`: number of frames; `instances`: the JSON's annotations of this video, unchanged | ytvis, entityseg_images |

Without ground truth (challenge test sets) the lists of annotations are empty.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from entitysam.structures import Video

AnnotationFormat = Literal["panoptic", "semantic", "instances", "tracks"]
IMAGE_SUFFIXES = (".jpg", ".png", ".jpeg", ".JPEG")


class EvaluationSet:
    """The videos of a benchmark. An image is a video of one frame.

    Attributes:
        title: the benchmark and its part, for reports.
        annotation_format: type of the annotation, see the module's table.
        categories: mappings with `id`, `name`, `isthing`.
        videos: in the order of the annotation file.
        is_images: every video is a single image, and files follow the conventions of image benchmarks.
        has_truth: annotations are there.
    """

    def __init__(
        self,
        title: str,
        annotation_format: AnnotationFormat,
        categories: Sequence[dict[str, Any]],
        videos: Sequence[Video],
        is_images: bool = False,
        has_truth: bool = True,
    ) -> None:
        self.title = title
        self.annotation_format = annotation_format
        self.categories = list(categories)
        self.videos = list(videos)
        self.is_images = is_images
        self.has_truth = has_truth

    def __len__(self) -> int:
        return len(self.videos)


def find_image(folder: Path, stem: str) -> Path:
    """Image file `stem` of a folder, with any image suffix; `<stem>.jpg` if there is none, so that reading it raises."""
    candidates = (folder / f"{stem}{suffix}" for suffix in IMAGE_SUFFIXES)
    return next((path for path in candidates if path.is_file()), folder / f"{stem}.jpg")
