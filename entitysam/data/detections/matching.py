"""Which detections of a file belong to which frame of a clip."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from entitysam.data.detections.frame_numbers import find_rule, numbers_in
from entitysam.data.detections.readers import FrameRecord, VideoRecords, read_detections
from entitysam.data.images import DataError
from entitysam.structures import Detections

NOTHING = Detections.of(np.zeros((0, 4)))


class ClipDetections:
    """The detections of one clip.

    Frames are matched by the names of their images where one side has all of the other's names; else by number (see
    `frame_numbers`); else by the names that both have.

    Args:
        path: of the file.
        clip: name of the clip, to choose among the videos of the file.
        names: of the clip's frames, the names of its images; see `has_images`.
        numbers: positions of the clip's frames in the video, from 0.
        contents: of the file, where it was read before.
        has_images: the names are those of image files; False = a video, whose frames have no names of their own.
        open_end: the clip may be cut off before the end of the video.

    Attributes:
        categories: mappings with `id` and `name`.
        missing: number of the video's frames in the file that the clip does not have.
        rule: how the frames were matched, in words.
        warnings: what is wrong with the file without making it useless, a line each.

    Raises:
        DataError: file unusable, no such video in it, nothing in it belongs to the clip, or numbers that fit no rule.
    """

    def __init__(
        self,
        path: str | Path,
        clip: str,
        names: Sequence[str],
        numbers: Sequence[int],
        contents: VideoRecords | None = None,
        has_images: bool = True,
        open_end: bool = False,
    ) -> None:
        self.path, self._clip = Path(path), clip
        found = contents or read_detections(path)
        self.categories, self.warnings = found.categories, list(found.warnings)
        names = names if has_images else []
        frames = self._video(found, names)
        self._frames: list[FrameRecord | None] = [None] * len(numbers)
        self.rule = "no frames in the file"
        if frames:
            matched = self._match(found, frames, names, numbers, open_end)
            for position, frame in matched.items():
                self._frames[position] = frame
        self.missing = len(frames) - sum(frame is not None for frame in self._frames)

    def _match(
        self,
        found: VideoRecords,
        frames: Sequence[FrameRecord],
        names: Sequence[str],
        numbers: Sequence[int],
        open_end: bool,
    ) -> dict[int, FrameRecord]:
        """Position in the clip -> frame of the file; sets `rule`."""
        by_name = {frame.name: frame for frame in frames if frame.name}
        shared = {position: by_name[name] for position, name in enumerate(names) if name in by_name}
        self.rule = "image names"
        if shared and len(shared) in (len(names), len(frames)):
            return shared
        by_number, key = {frame.number: frame for frame in frames if frame.number is not None}, found.number_key
        if not by_number and not names:  # a video: its file may name the frames by their numbers
            listed = numbers_in([frame.name for frame in frames])
            by_number, key = {number: frames[place] for number, place in (listed or {}).items()}, "name"
        rule = None
        if len(by_number) == len(frames):
            rule = find_rule(list(by_number), numbers, names, key, open_end)
        if rule is not None:
            self.rule = rule.text
            return {rule.frame_of[n]: frame for n, frame in by_number.items() if n in rule.frame_of}
        if shared:
            return shared
        raise DataError(self._mismatch(frames, names, numbers, list(by_number)))

    def _mismatch(
        self, frames: Sequence[FrameRecord], names: Sequence[str], numbers: Sequence[int], listed: Sequence[int]
    ) -> str:
        first = (
            f"{self.path}: none of its frames ({frames[0].name or frames[0].number}, ...) is a frame of {self._clip}"
        )
        if not listed:
            return f"{first} ({names[0] if names else 'which has no image names'}, ...)"
        return (
            f"{self.path}: its frame numbers {min(listed)}..{max(listed)} do not fit the {len(numbers)} frames of "
            f"{self._clip}, counted from 0, from 1, or by the numbers in the image names"
        )

    def _video(self, found: VideoRecords, names: Sequence[str]) -> list[FrameRecord]:
        """The frames of the clip's video: of that name, the only one, or the only one that shares names of frames."""
        videos = found.videos
        named = [frames for name, frames in videos.items() if self._clip in (name, Path(name).name)]
        if len(named) != 1 and len(videos) == 1:
            named = list(videos.values())
        if len(named) != 1:
            known = set(names)
            named = [frames for frames in videos.values() if any(frame.name in known for frame in frames)]
        if len(named) == 1 or not videos:
            return named[0] if named else []
        listed = ", ".join(sorted(videos)[:5])
        raise DataError(f"{self.path}: {len(videos)} videos ({listed}, ...), none of which is surely {self._clip}")

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
                    f"{self.path}: frame {frame.name or frame.number}: a mask is {width}x{height}, "
                    f"the frame {size[1]}x{size[0]}"
                )
        return objects
