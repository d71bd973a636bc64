"""YouTube-VIS (Yang et al., ICCV 2019), OVIS (Qi et al., IJCV 2022) and EntitySeg (Qi et al., ICCV 2023) to evaluate on.

    root/<split>/JPEGImages/<video>/<frame>.jpg (YouTube-VIS) or root/<split>/<video>/<frame>.jpg (OVIS)
    root/<split>.json or root/annotations/<split>.json

The official annotations of their validation and test sets are not public: without `annotations` in the json,
predictions can be written for the benchmark's server, and nothing is measured.
"""

from pathlib import Path
from typing import Any

from entitysam.data.categories import read_categories
from entitysam.data.evaluation.base import EvaluationSet
from entitysam.data.images import DataError
from entitysam.data.index import read_json
from entitysam.data.training.coco import HINT
from entitysam.data.training.instances import InstanceJson
from entitysam.registry import DATASETS
from entitysam.structures import Video


@DATASETS.register("ytvis")
class YouTubeVIS(EvaluationSet):
    """YouTube-VIS 2019, 2021 or OVIS.

    Args:
        root: folder of the data set.
        split: e.g. "valid".
        categories: list below `configs/categories` for a json without categories, e.g. "ovis".

    Raises:
        DataError: json missing, broken, or annotations of videos that it does not have.
    """

    def __init__(self, root: str | Path, split: str = "valid", categories: str = "ytvis_2019") -> None:
        root = Path(root)
        inside = root / split / "JPEGImages"
        self.images = inside if inside.is_dir() else root / split
        plain = root / f"{split}.json"
        self.annotations = plain if plain.is_file() else root / "annotations" / f"{split}.json"
        contents = read_json(self.annotations, ("videos",), HINT)
        annotations = contents.get("annotations") or []
        try:
            videos = [self._video(video) for video in contents["videos"]]
            _attach(videos, annotations, "video_id", self.annotations)
        except (KeyError, TypeError) as error:
            raise DataError(f"{self.annotations}: an entry lacks {error}") from error
        known = contents.get("categories") or read_categories(categories)
        title = f"{root} {split}"
        super().__init__(title, "instances", known, videos, has_truth=bool(annotations))

    def _video(self, video: dict[str, Any]) -> Video:
        files = [self.images / name for name in video["file_names"]]
        annotation = {"key": video["id"], "length": len(files), "instances": []}
        return Video(str(video["id"]), files, int(video["height"]), int(video["width"]), annotation)


@DATASETS.register("entityseg_images")
class EntitySegImages(EvaluationSet):
    """EntitySeg's validation pictures (layout: `data.training.instances.EntitySeg`); every picture is a video of one frame.

    Args:
        root: folder of the data set.
        split: name of the json without suffix; `entityseg_val_lr` is the low-resolution set of the papers' AP_L^e.

    Raises:
        DataError: files missing, or a json that contradicts itself.
    """

    def __init__(self, root: str | Path = "datasets/entityseg", split: str = "entityseg_val_lr") -> None:
        path = Path(root) / "annotations" / f"{split}.json"
        contents = read_json(path, ("images", "annotations"), HINT)
        find = InstanceJson(Path(root) / "images", []).find
        try:
            videos = [
                Video(
                    str(image["id"]),
                    [find(image["file_name"])],
                    int(image["height"]),
                    int(image["width"]),
                    {"key": image["id"], "length": 1, "instances": []},
                )
                for image in contents["images"]
            ]
            _attach(videos, contents["annotations"], "image_id", path)
        except (KeyError, TypeError) as error:
            raise DataError(f"{path}: an entry lacks {error}") from error
        categories = [{"id": 1, "name": "entity", "isthing": 1}]
        super().__init__(f"{root} {split}", "instances", categories, videos, is_images=True)


def _attach(videos: list[Video], annotations: list[dict[str, Any]], key: str, path: Path) -> None:
    """Gives every video its annotations, in file order."""
    by_key = {video.annotation["key"]: video for video in videos}
    for annotation in annotations:
        video = by_key.get(annotation[key])
        if video is None:
            raise DataError(f"{path}: annotation {annotation['id']}: {key} {annotation[key]} is not in the file")
        video.annotation["instances"].append(annotation)
