"""Which detections of a file belong to which frame of a clip."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from entitysam.data.detections.readers import FrameRecord, VideoRecords, read_detections
from entitysam.data.images import DataError
from entitysam.structures import Detections

NOTHING = Detections.of(np.zeros((0, 4)))


class ClipDetections:
    """The detections of one clip.

    Frames are found by the names of their pictures; where none of the clip's names is in the file, by their numbers.

    Args:
        path: of the file.
        clip: name of the clip, to choose among the videos of the file.
        names: of the clip's frames, e.g. stems of its pictures.
        numbers: of the clip's frames in the video, from 0.
        contents: of the file, where it was read before.

    Attributes:
        categories: mappings with `id` and `name`.
        missing: frames of the file (of this video) that the clip does not have.

    Raises:
        DataError: file unusable, no such video in it, or nothing in it belongs to the clip.
    """

    def __init__(
        self,
        path: str | Path,
        clip: str,
        names: Sequence[str],
        numbers: Sequence[int],
        contents: VideoRecords | None = None,
    ) -> None:
        self.path = Path(path)
        found = contents or read_detections(path)
        self.categories = found.categories
        frames = self._video(found, clip, names)
        by_name = {frame.name: frame for frame in frames if frame.name}
        by_number = {frame.index: frame for frame in frames if frame.index >= 0}
        self._frames: list[FrameRecord | None] = [by_name.get(name) for name in names]
        if not any(self._frames):
            self._frames = [by_number.get(number) for number in numbers]
        if frames and not any(self._frames):
            raise DataError(
                f"{path}: none of its frames ({frames[0].name or frames[0].index}, ...) is a frame of {clip} "
                f"({names[0] if names else 'which has none'}, ...)"
            )
        self.missing = len(frames) - sum(frame is not None for frame in self._frames)

    def _video(self, found: VideoRecords, clip: str, names: Sequence[str]) -> list[FrameRecord]:
        """The frames of the clip's video: of that name, the only one, or the only one that shares names of frames."""
        videos = found.videos
        named = [frames for name, frames in videos.items() if clip in (name, Path(name).name)]
        if len(named) != 1 and len(videos) == 1:
            named = list(videos.values())
        if len(named) != 1:
            known = set(names)
            named = [frames for frames in videos.values() if any(frame.name in known for frame in frames)]
        if len(named) == 1 or not videos:
            return named[0] if named else []
        listed = ", ".join(sorted(videos)[:5])
        raise DataError(f"{self.path}: {len(videos)} videos ({listed}, ...), none of which is surely {clip}")

    def at(self, index: int, size: tuple[int, int]) -> Detections:
        """Detections of the clip's frame `index`, which is of `size` (H, W); none where the file has none.

        Raises:
            DataError: a mask of another size.
        """
        frame = self._frames[index] if index < len(self._frames) else None
        if frame is None:
            return NOTHING
        objects = frame.objects[~frame.ignore]
        for mask in objects.masks:
            if mask is not None and tuple(mask["size"]) != tuple(size):
                height, width = mask["size"]
                raise DataError(
                    f"{self.path}: frame {frame.name or frame.index}: a mask is {width}x{height}, "
                    f"the frame {size[1]}x{size[0]}"
                )
        return objects
