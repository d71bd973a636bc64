"""The result folder of segmented images: id PNGs, overlays, one COCO panoptic json, images of the steps."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from entitysam.esam.explain import explain
from entitysam.esam.segmenter import EntityMap, Trace
from entitysam.io.files import make_folder, whole_file
from entitysam.io.id_maps import write_ids
from entitysam.io.writers.annotations import ENTITY_CATEGORY, describe_entities
from entitysam.visualization.overlay import draw_entities

MASKS, OVERLAYS, EXPLAIN, PANOPTIC = "masks", "overlays", "explain", "panoptic.json"


class ImageResults:
    """Writes a result folder image by image. Each file is complete or absent.

    Args:
        out: the folder.
        journal: folder for one record per finished image, from which `finish` writes `panoptic.json`.

    Raises:
        OutputError: the folder cannot be written to.
    """

    def __init__(self, out: Path, journal: Path) -> None:
        self.out = out
        self._journal = make_folder(journal)

    def __len__(self) -> int:
        """Number of finished images."""
        return len(list(self._journal.glob("*.json")))

    def is_finished(self, name: str) -> bool:
        """Whether all results of an image, given by the stem of its file, are written."""
        return self._record(name).is_file()

    def add(self, file: Path, image: np.ndarray, found: EntityMap, trace: Trace | None = None) -> None:
        """Writes one image.

        Args:
            file: the image's file; its stem names the results.
            image: uint8 [H, W, 3] RGB.
            found: its entities.
            trace: its intermediate results, drawn if given.
        """
        name = file.stem
        if trace is not None:
            folder = make_folder(self.out / EXPLAIN / name)
            for step, drawn in explain(image, trace).items():
                _write_jpeg(folder / f"{step}.jpg", drawn)
        _write_jpeg(make_folder(self.out / OVERLAYS) / f"{name}.jpg", draw_entities(image, found.ids))
        write_ids(make_folder(self.out / MASKS) / f"{name}.png", found.ids)
        height, width = found.ids.shape
        entities = describe_entities(found.ids)
        kept = [{key: entity[key] for key in ("id", "bbox", "area")} for entity in entities]
        infos = [
            {
                **e,
                "category_id": ENTITY_CATEGORY["id"],
                "iscrowd": 0,
                "score": round(float(found.scores[e["id"] - 1]), 6),
            }
            for e in kept
        ]
        record = {"file_name": file.name, "height": height, "width": width, "segments_info": infos}
        # Written last: it marks the image as finished.
        with whole_file(self._record(name)) as temporary:
            temporary.write_text(json.dumps(record), encoding="utf-8")

    def finish(self, files: list[Path]) -> int:
        """Writes `panoptic.json` of the finished images among `files` and returns their number of entities."""
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number, file in enumerate((f for f in files if self.is_finished(f.stem)), start=1):
            record = json.loads(self._record(file.stem).read_text(encoding="utf-8"))
            infos = record.pop("segments_info")
            images.append({"id": number, **record})
            annotations.append({"image_id": number, "file_name": f"{file.stem}.png", "segments_info": infos})
        content = {"images": images, "annotations": annotations, "categories": [ENTITY_CATEGORY]}
        with whole_file(self.out / PANOPTIC) as temporary:
            temporary.write_text(json.dumps(content), encoding="utf-8")
        return sum(len(annotation["segments_info"]) for annotation in annotations)

    def _record(self, name: str) -> Path:
        return self._journal / f"{name}.json"


def _write_jpeg(path: Path, image: np.ndarray) -> None:
    with whole_file(path) as temporary:
        Image.fromarray(image).save(temporary, format="JPEG", quality=92)
