"""What the readers take from annotation files, as types that pydantic checks; other keys are left out."""

from typing import Annotated, Any

from pydantic import Field
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


Categories = list[Category]
Segments = list[Segment]


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

    images: list[PanopticImage]
    annotations: list[PanopticAnnotation]
    categories: Categories


class VideoFrame(TypedDict):
    file_name: str
    segments_info: Segments


class VideoAnnotation(TypedDict):
    video_id: Key
    annotations: list[VideoFrame]


class VipsegFile(TypedDict):
    """VIPSeg's json; the sizes of its frames are not read here."""

    annotations: list[VideoAnnotation]
    categories: Categories


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

    images: list[InstanceImage]
    annotations: list[InstanceAnnotation]
    categories: NotRequired[Categories]


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

    annotations: list[DetectedObject]
    images: NotRequired[list[DetectionImage]]
    videos: NotRequired[list[DetectionVideo]]
    categories: NotRequired[Categories]


DetectionResults = list[DetectedObject]


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
    labels: NotRequired[list[ScalabelLabel] | None]


ScalabelFrames = list[ScalabelFrame]


class ScalabelFile(TypedDict):
    frames: ScalabelFrames
