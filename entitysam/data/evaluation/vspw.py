"""VSPW (Miao et al., CVPR 2021) as an evaluation set.

    root/<split>.txt    root/data/<video>/origin/<frame>.jpg    root/data/<video>/mask/<frame>.png

A mask has one label per pixel: 0 = others, 1..124 = category id + 1, 255 = void.
"""

from pathlib import Path

import numpy as np

from entitysam.data.categories import read_categories
from entitysam.data.evaluation.base import EvaluationSet, find_image
from entitysam.data.images import DataError, open_image
from entitysam.data.index import read_text, require_folder
from entitysam.data.training.coco import HINT
from entitysam.io.paths import join_inside
from entitysam.registry import DATASETS
from entitysam.structures import Video


@DATASETS.register("vspw")
class VSPWVideos(EvaluationSet):
    """VSPW_480p, or any set in its layout. Frames without a mask are left out, unless the whole split has no masks.

    Args:
        root: folder of the data set.
        split: "train", "val" or "test".

    Raises:
        DataError: list or folder missing, a video without frames, a mask that is no image.
        UnsafePathError: a video's name that leaves the folder.
    """

    def __init__(self, root: str | Path = "datasets/VSPW_480p", split: str = "val") -> None:
        self.root = Path(root)
        listing = self.root / f"{split}.txt"
        require_folder(self.root / "data", HINT)
        names = read_text(listing, HINT).split()
        if not names:
            raise DataError(f"{listing}: lists no video")
        for name in names:
            join_inside(self.root / "data", name, str(listing), follow_links=True)
        truth = any((self.root / "data" / name / "mask").is_dir() for name in names)
        videos = [self._video(name, truth) for name in names]
        title = f"{self.root} {split}"
        super().__init__(title, "semantic", read_categories("vspw"), videos, has_truth=truth)

    def _video(self, name: str, truth: bool) -> Video:
        folder = self.root / "data" / name
        source = folder / ("mask" if truth else "origin")
        stems = sorted(path.stem for path in source.glob("*.png" if truth else "*.*"))
        if not stems:
            raise DataError(f"{source}: no frames. {HINT}")
        frames = [find_image(folder / "origin", stem) for stem in stems]
        masks = [folder / "mask" / f"{stem}.png" for stem in stems] if truth else []
        height, width = _size((masks or frames)[0])
        annotation = {"key": name, "names": [f"{name}/{stem}.png" for stem in stems], "mask_files": masks}
        return Video(name, frames, height, width, annotation)


def read_labels(path: Path) -> np.ndarray:
    """uint8 [H, W] labels of a grey or palette PNG.

    Raises:
        DataError: missing or broken file, or an image with colours.
    """
    with open_image(path) as image:
        if image.mode not in ("L", "P", "1"):
            raise DataError(f"{path}: mode {image.mode}; a label map is a grey or palette PNG")
        return np.array(image, np.uint8)


def _size(path: Path) -> tuple[int, int]:
    """(height, width) from the header of an image."""
    with open_image(path) as image:
        return image.height, image.width
