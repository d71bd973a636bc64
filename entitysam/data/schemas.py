"""What the readers take from annotation files, as types that pydantic checks; other keys are left out."""

from typing import Annotated, Any

from pydantic import FailFast, Field
from typing_extensions import NotRequired, TypedDict

from entitysam.io.json_files import Integer, keep_other_keys

Key = str | Integer  # id of a video, an image or a track
Side = Annotated[int, Field(ge=1, le=1 << 15)]  # height or width of an image in pixels
Box = Annotated[list[float | None], Field(min_length=4, max_length=4)]  # x, y, width, height; null is JSON's NaN


@keep_other_keys
class Category(TypedDict):
    """A category of an annotation file."""

    id: Integer
    name: NotRequired[str]
    isthing: NotRequired[Integer]


class Segment(TypedDict):
    """One entry of COCO panoptic's `segments_info`."""

    id: Integer
    category_id: Integer
    iscrowd: NotRequired[Integer]
    area: NotRequired[int | float]
    bbox: NotRequired[Box]


Categories = Annotated[list[Category], FailFast()]
Segments = Annotated[list[Segment], FailFast()]


class PanopticImage(TypedDict):
    id: Key
    file_name: str
    height: NotRequired[Side]
    width: NotRequired[Side]


class PanopticAnnotation(TypedDict):
    image_id: Key
    file_name: str
    segments_info: Segments


class CocoPanopticFile(TypedDict):
    """COCO panoptic json."""

    images: Annotated[list[PanopticImage], FailFast()]
    annotations: Annotated[list[PanopticAnnotation], FailFast()]
    categories: Categories


class VideoImage(TypedDict):
    height: Side
    width: Side


class VideoEntry(TypedDict):
    video_id: Key
    images: Annotated[list[VideoImage], FailFast()]


class VideoFrame(TypedDict):
    file_name: str
    segments_info: Segments


class VideoAnnotation(TypedDict):
    video_id: Key
    annotations: Annotated[list[VideoFrame], FailFast()]


class VipsegTrainingFile(TypedDict):
    """VIPSeg's json, without the sizes of the frames."""

    annotations: Annotated[list[VideoAnnotation], FailFast()]
    categories: Categories


class VipsegFile(VipsegTrainingFile):
    """VIPSeg's json."""

    videos: Annotated[list[VideoEntry], FailFast()]


class InstanceImage(TypedDict):
    id: Key
    file_name: str
    height: Side
    width: Side


class InstanceAnnotation(TypedDict):
    id: Integer
    image_id: Key
    segmentation: Any
    category_id: NotRequired[Integer]
    iscrowd: NotRequired[Integer]
    bbox: NotRequired[Any]
    area: NotRequired[float | None]


class InstanceFile(TypedDict):
    """COCO instances json."""

    images: Annotated[list[InstanceImage], FailFast()]
    annotations: Annotated[list[InstanceAnnotation], FailFast()]
    categories: NotRequired[Categories]


class TubeVideo(TypedDict):
    id: Key
    file_names: list[str]
    height: Side
    width: Side


class Tube(TypedDict):
    """An instance of YouTube-VIS: one mask, or None, per frame."""

    id: Integer
    video_id: Key
    category_id: Integer
    segmentations: list[Any]
    iscrowd: NotRequired[Integer]
    areas: NotRequired[list[float | None]]
    occlusion: NotRequired[list[str | None]]


class TubeFile(TypedDict):
    """YouTube-VIS or OVIS json; benchmarks keep the annotations of their test sets back."""

    videos: Annotated[list[TubeVideo], FailFast()]
    annotations: NotRequired[Annotated[list[Tube], FailFast()] | None]
    categories: NotRequired[Categories | None]


class DetectionImage(TypedDict):
    id: Key
    file_name: str
    video_id: NotRequired[Key | None]
    frame_index: NotRequired[Integer | None]
    frame_id: NotRequired[Integer | None]
    height: NotRequired[Side | None]
    width: NotRequired[Side | None]


class DetectedObject(TypedDict):
    """An annotation of COCO, CocoVID or TAO, or an entry of COCO results."""

    image_id: Key
    id: NotRequired[Any]
    bbox: NotRequired[Box | None]
    segmentation: NotRequired[Any]
    score: NotRequired[float | None]
    category_id: NotRequired[Integer | None]
    track_id: NotRequired[Key | None]
    instance_id: NotRequired[Key | None]
    iscrowd: NotRequired[Integer | None]


class DetectionVideo(TypedDict):
    id: Key
    name: NotRequired[Key]


class DetectionFile(TypedDict):
    """COCO, CocoVID or TAO json."""

    annotations: Annotated[list[DetectedObject], FailFast()]
    images: NotRequired[Annotated[list[DetectionImage], FailFast()]]
    videos: NotRequired[Annotated[list[DetectionVideo], FailFast()]]
    categories: NotRequired[Categories]


DetectionResults = Annotated[list[DetectedObject], FailFast()]


class ScalabelBox(TypedDict):
    x1: float | None
    y1: float | None
    x2: float | None
    y2: float | None


class ScalabelAttributes(TypedDict):
    crowd: NotRequired[bool | None]


class ScalabelLabel(TypedDict):
    category: str
    id: NotRequired[Key | None]
    score: NotRequired[float | None]
    box2d: NotRequired[ScalabelBox | None]
    rle: NotRequired[Any]
    attributes: NotRequired[ScalabelAttributes | None]


class ScalabelFrame(TypedDict):
    name: str
    videoName: NotRequired[str | None]
    frameIndex: NotRequired[Integer | None]
    labels: NotRequired[Annotated[list[ScalabelLabel], FailFast()] | None]


ScalabelFrames = Annotated[list[ScalabelFrame], FailFast()]


class ScalabelFile(TypedDict):
    frames: ScalabelFrames
