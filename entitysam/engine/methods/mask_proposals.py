"""Writes masks of everything in a folder of images as COCO instances: MASA's training data."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from entitysam.data.images import DataError, read_image
from entitysam.io.readers.images import SUFFIXES
from entitysam.ops import rle_area, rle_encode

Segment = Callable[[np.ndarray], tuple[list[np.ndarray], list[float]]]  # image -> masks [H, W] and scores


def write_proposals(
    segment: Segment,
    images: str | Path,
    out: str | Path,
    split: str = "train",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Segments every image below a folder. A later call continues an interrupted one.

    out/<split> becomes a link to the images, out/annotations/instances_<split>.json has their masks.

    Args:
        segment: e.g. `esam.everything.everything` with a segmenter.
        images: folder, searched with its subfolders.
        out: folder of the new data set.
        split: name of its split.
        progress: called with (images done, all images).

    Returns:
        number of masks.

    Raises:
        DataError: no images, an image that cannot be read, or out/<split> links to another folder.
    """
    images, out = Path(images), Path(out)
    files = sorted(path.relative_to(images) for path in images.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise DataError(f"{images}: no images in it ({', '.join(SUFFIXES)})")
    _link(out / split, images)
    final = out / "annotations" / f"instances_{split}.json"
    final.parent.mkdir(parents=True, exist_ok=True)
    partial = final.with_suffix(".partial.jsonl")
    done = {record["file_name"]: record for record in _records(partial)}
    with partial.open("a", encoding="utf-8") as stream:
        for number, file in enumerate(files):
            progress(number, len(files))
            if str(file) not in done:
                done[str(file)] = _segment_file(segment, images, file)
                stream.write(json.dumps(done[str(file)]) + "\n")
                stream.flush()
    progress(len(files), len(files))
    contents = _as_coco([done[str(file)] for file in files])
    unfinished = final.with_suffix(".json.partial")
    unfinished.write_text(json.dumps(contents), encoding="utf-8")
    unfinished.replace(final)
    partial.unlink()
    return len(contents["annotations"])


def _link(link: Path, images: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.symlink_to(images.resolve(), target_is_directory=True)
    elif link.resolve() != images.resolve():
        raise DataError(f"{link}: exists already and leads to {link.resolve()}, not to {images.resolve()}")


def _records(partial: Path) -> list[dict[str, Any]]:
    """Records of an interrupted run; an incomplete last line is removed."""
    if not partial.is_file():
        return []
    text = partial.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        partial.write_text(whole, encoding="utf-8")
    return [json.loads(line) for line in whole.splitlines()]


def _segment_file(segment: Segment, images: Path, file: Path) -> dict[str, Any]:
    pixels = read_image(images / file)
    masks, scores = segment(pixels)
    found = [
        {"segmentation": rle_encode(mask), "score": round(score, 4)} for mask, score in zip(masks, scores, strict=True)
    ]
    return {"file_name": str(file), "height": pixels.shape[0], "width": pixels.shape[1], "masks": found}


def _as_coco(records: list[dict[str, Any]]) -> dict[str, Any]:
    coco_images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, record in enumerate(records, start=1):
        coco_images.append({"id": number, **{key: record[key] for key in ("file_name", "height", "width")}})
        for mask in record["masks"]:
            area = rle_area(mask["segmentation"])
            place = {"id": len(annotations) + 1, "image_id": number, "category_id": 1, "iscrowd": 0, "area": area}
            annotations.append({**place, **mask})
    return {"images": coco_images, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]}
