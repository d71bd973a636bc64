"""What a file of detections or annotated tracks holds, whatever its format."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from entitysam.structures import Detections

NumberKey = Literal["frame_id", "image_id", "mot", "name"]  # what numbers the frames of a file


@dataclass
class FrameRecord:
    """The objects of one frame.

    Attributes:
        name: of its image, without folder and image suffix; "" where the file has none.
        number: of the frame as the file has it; None where it has none.
        file: of its image, as the file has it; "" where it has none.
        objects: detections or annotated objects.
        track_ids: of annotations, per object: a text or a number; None where there is none.
        ignore: bool [N], of annotations: a crowd, in which predictions do not count.
    """

    name: str
    number: int | None = None
    file: str = ""
    objects: Detections = field(default_factory=lambda: Detections.of(np.zeros((0, 4))))
    track_ids: list[Any] = field(default_factory=list)
    ignore: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    @property
    def label(self) -> str:
        """The frame in messages."""
        return self.file or self.name or str(self.number)


@dataclass
class VideoRecords:
    """The contents of a file.

    Attributes:
        videos: frames in order, by the name of the video; "" where the file has one video without a name.
        categories: mappings with `id` and `name`.
        number_key: what `FrameRecord.number` is.
        warnings: what could not be used, a line each.
    """

    videos: dict[str, list[FrameRecord]]
    categories: list[dict[str, Any]] = field(default_factory=list)
    number_key: NumberKey = "frame_id"
    warnings: list[str] = field(default_factory=list)
