"""Semantic predictions of VSPW: `<video>/<frame>.png`, grey, one category id 0..123 per pixel (mask label - 1)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from entitysam.data.evaluation.vspw import read_labels
from entitysam.engine.formats.base import Entry, PredictionFormat, Segmented
from entitysam.evaluation import EvaluationError, SemanticVideo
from entitysam.io.files import whole_file
from entitysam.io.paths import join_inside
from entitysam.registry import ConfigError
from entitysam.structures import Video

MAPS = "semantic_pred"


class SemanticFormat(PredictionFormat):
    """There is no index file: a video is predicted if it has a subfolder of `semantic_pred`, or of the folder itself."""

    input_types = (SemanticVideo,)

    def map_files(self, video: Video) -> list[Path]:
        where = f"video {video.video_id}"
        return [join_inside(self.folder / MAPS, name, where) for name in video.annotation["names"]]

    def write(self, video: Video, segmented: Segmented, categories: np.ndarray | None = None) -> Entry:
        if categories is None:
            raise ConfigError("semantic predictions need categories: give evaluation.classifier")
        label_of = np.concatenate([[0], categories]).astype(np.uint8)
        for path, ids in zip(self.map_files(video), segmented.iter_ids(), strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as temporary:
                Image.fromarray(label_of[fill_from_nearest(ids)]).save(temporary, format="PNG")
        return {"video_id": video.annotation["key"]}

    def write_index(self, entries: Sequence[Entry]) -> None:
        """The folders are the submission; there is no index file."""

    def read_index(self) -> dict[str, list[Entry]]:
        root = self._root()
        found = [video for video in self.dataset.videos if (root / video.video_id).is_dir()]
        return {video.video_id: [{"video_id": video.annotation["key"]}] for video in found}

    def pair(self, video: Video, entry: Entry | None, kind: type) -> SemanticVideo:
        if entry is None:
            raise EvaluationError(f"video {video.video_id}: not predicted")
        masks, names, root = video.annotation["mask_files"], video.annotation["names"], self._root()
        return SemanticVideo(
            video.video_id,
            len(masks),
            read_truth=lambda frame: read_labels(masks[frame]),
            read_prediction=lambda frame: read_labels(root / names[frame]),
        )

    def maps(self, video: Video, entry: Entry | None, frame: int) -> tuple[np.ndarray, np.ndarray]:
        truth = read_labels(video.annotation["mask_files"][frame]).astype(np.int32)
        truth[truth == 255] = 0
        if entry is None:
            return truth, np.zeros_like(truth)
        return truth, read_labels(self._root() / video.annotation["names"][frame]).astype(np.int32) + 1

    def _root(self) -> Path:
        below = self.folder / MAPS
        return below if below.is_dir() else self.folder


def fill_from_nearest(ids: np.ndarray) -> np.ndarray:
    """Assigns the id of the nearest entity to every pixel without one, [H, W]: VSPW needs a category everywhere (ours)."""
    if not (ids == 0).any() or not ids.any():
        return ids
    rows, columns = ndimage.distance_transform_edt(ids == 0, return_distances=False, return_indices=True)
    return ids[rows, columns]
