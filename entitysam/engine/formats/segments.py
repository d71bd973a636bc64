"""Types of the JSON of panoptic and instance files; ground truth and predictions alike."""

from typing import Annotated, Any

from pydantic import Field
from typing_extensions import NotRequired, TypedDict

from entitysam.data.schemas import Key
from entitysam.io.json_files import Box, Finite, Integer, keep_other_keys

SegmentId = Annotated[int, Field(ge=0, lt=1 << 31)]
Score = float  # NaN is counted by the evaluators and sorts last


@keep_other_keys
class Segment(TypedDict):
    """One entry of `segments_info`; the evaluators report missing keys that they need."""

    id: SegmentId
    category_id: NotRequired[Integer]
    area: NotRequired[Finite]
    bbox: NotRequired[Box]
    iscrowd: NotRequired[Integer | None]
    score: NotRequired[Score]


@keep_other_keys
class PanopticFrame(TypedDict):
    segments_info: list[Segment]


class PanopticEntry(TypedDict):
    """A video of `pred.json`; frames are checked one by one."""

    annotations: list[dict[str, Any]]


@keep_other_keys
class OfVideo(TypedDict):
    video_id: Key


@keep_other_keys
class OfImage(TypedDict):
    image_id: Key


class VideoIndex(TypedDict):
    """`pred.json`; the rest of an entry is checked when its video is evaluated."""

    annotations: list[OfVideo]


class ImageIndex(TypedDict):
    """`pred.json` of images."""

    annotations: list[OfImage]


@keep_other_keys
class InstanceResult(TypedDict):
    category_id: Integer
    score: Score


@keep_other_keys
class InstanceAnnotation(TypedDict):
    id: Integer
    category_id: NotRequired[Integer]
    iscrowd: NotRequired[Integer | None]
    area: NotRequired[Finite | None]
    areas: NotRequired[list[Finite | None] | None]
    occlusion: NotRequired[list[str | None] | None]


@keep_other_keys
class TrackedBox(TypedDict):
    """One box of `tracks.json`."""

    frame: Integer
    track_id: Integer
    category_id: Integer
    bbox: Box
