"""Videos as two folders of images, frames and id maps: DAVIS, or any set without an annotation file.

root/<images>/<video>/<frame>.jpg    root/<ids>/<video>/<frame>.png
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from natsort import natsorted

from entitysam.data.evaluation.base import EvaluationSet, find_image
from entitysam.data.images import DataError, open_image
from entitysam.data.index import read_text, require_folder
from entitysam.data.training.coco import HINT
from entitysam.io.paths import join_inside
from entitysam.ops import rgb_to_ids
from entitysam.registry import DATASETS
from entitysam.structures import Video

CATEGORIES = [{"id": 1, "name": "entity", "isthing": 1}]


@DATASETS.register("id_maps")
class IdMaps(EvaluationSet):
    """Class-agnostic videos. An id keeps its number through the video; 0 is not labelled and not counted.

    Args:
        root: folder of the data set.
        images, ids: folders of the frames and of the maps below it; only frames with a map are used. Maps are PNGs with a
            palette (DAVIS) or grey of 8 or 16 bit, whose values are ids, or RGB with id = R + 256 G + 65536 B.
        videos: text file below `root` with the names of the videos; by default all folders of `ids`.

    Raises:
        DataError: folder missing, no videos, a video without maps.
        UnsafePathError: a name in `videos` that leaves the folder.
    """

    def __init__(self, root: str | Path, images: str = "images", ids: str = "ids", videos: str = "") -> None:
        frames, maps = (require_folder(Path(root) / part, HINT) for part in (images, ids))
        if videos:
            listing = Path(root) / videos
            names = read_text(listing, HINT).split()
        else:
            listing, names = maps, natsorted(folder.name for folder in maps.iterdir() if folder.is_dir())
        if not names:
            raise DataError(f"{listing}: no videos in it")
        found = [
            _video(
                name,
                join_inside(frames, name, str(listing), follow_links=True),
                join_inside(maps, name, str(listing), follow_links=True),
            )
            for name in names
        ]
        super().__init__(f"{root}", "panoptic", CATEGORIES, found)


def _video(name: str, images: Path, ids: Path) -> Video:
    maps = natsorted(require_folder(ids, HINT).glob("*.png"))
    if not maps:
        raise DataError(f"{ids}: no PNG files in it")
    height, width = read_ids(maps[0]).shape
    annotation = {
        "key": name,
        "names": [f"{name}/{path.name}" for path in maps],
        "mask_files": maps,
        "segments": _Segments(maps),
        "read": read_ids,
    }
    return Video(name, [find_image(images, path.stem) for path in maps], height, width, annotation)


class _Segments(Sequence[list[dict[str, Any]]]):
    """`segments_info` of each frame, counted in its map when it is needed."""

    def __init__(self, maps: Sequence[Path]) -> None:
        self.maps = maps

    def __len__(self) -> int:
        return len(self.maps)

    @overload
    def __getitem__(self, frame: int) -> list[dict[str, Any]]: ...
    @overload
    def __getitem__(self, frame: slice) -> "_Segments": ...
    def __getitem__(self, frame: int | slice) -> "list[dict[str, Any]] | _Segments":
        if isinstance(frame, slice):
            return _Segments(self.maps[frame])
        numbers, areas = np.unique(read_ids(self.maps[frame]), return_counts=True)
        return [
            {"id": int(number), "category_id": 1, "iscrowd": 0, "area": int(area)}
            for number, area in zip(numbers, areas)
            if number
        ]


def read_ids(path: str | Path) -> np.ndarray:
    """int32 [H, W] ids of a map: the palette index, the grey value, or R + 256 G + 65536 B.

    Raises:
        DataError: missing, broken or huge file.
    """
    with open_image(path) as image:
        if image.mode in ("1", "L", "P") or image.mode.startswith("I"):
            return np.array(image, np.int32)
        return rgb_to_ids(np.asarray(image.convert("RGB")))
