"""Id maps as PNG files: DAVIS (palette), MOTS (16 bit), VIPSeg (RGB, with a json)."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from natsort import natsorted
from PIL import Image
from typing_extensions import TypedDict

from entitysam.exchange.video import ENTITY, Entity, Instance, Side, TrackedVideo, check_video, new_folder
from entitysam.io.files import make_folder, whole_file
from entitysam.io.json_files import check_type, keep_other_keys, load_json
from entitysam.io.paths import join_inside
from entitysam.io.readers.base import InputError
from entitysam.visualization.overlay import id_colours

MOTS_CLASS, MOTS_IDS, MOTS_IGNORED = 1, 1000, 10000
VIPSEG_JSON, VIPSEG_MASKS = "panoptic_gt_VIPSeg_val.json", "panomasksRGB"


def write_davis(video: TrackedVideo, out: Path) -> None:
    """`<frame>.png` with a palette, value = id; the values of DAVIS end at 255."""
    _check_largest(video, 255, "a DAVIS palette")
    palette = id_colours(np.arange(256)).tobytes()

    def draw(ids: np.ndarray) -> Image.Image:
        image = Image.fromarray(ids.astype(np.uint8), mode="P")
        image.putpalette(palette)
        return image

    _write_maps(video, out, draw)


def read_davis(path: Path) -> TrackedVideo:
    """A folder of palette (or grey) PNGs.

    Raises:
        InputError: no PNGs, PNGs of another kind or of different sizes.
    """

    def ids_of(image: Image.Image, file: Path) -> np.ndarray:
        if image.mode not in ("P", "L", "1"):
            raise InputError(f"{file}: is {image.mode}, not an image with a palette")
        return np.asarray(image).astype(np.int32)

    return _read_maps(path, ids_of)


def write_mots_png(video: TrackedVideo, out: Path) -> None:
    """`<frame>.png` of 16 bits, value = 1000 * class + id with class 1; ids end at 999."""
    _check_largest(video, MOTS_IDS - 1, "a MOTS image")
    _write_maps(
        video, out, lambda ids: Image.fromarray(np.where(ids, ids + MOTS_CLASS * MOTS_IDS, 0).astype(np.uint16))
    )


def read_mots_png(path: Path) -> TrackedVideo:
    """A folder of 16-bit PNGs; the region to be ignored (10000) is left out. Classes must not share an id.

    Raises:
        InputError: no PNGs, PNGs of another kind or of different sizes.
    """

    def ids_of(image: Image.Image, file: Path) -> np.ndarray:
        if not image.mode.startswith("I"):
            raise InputError(f"{file}: is {image.mode}, not an image of 16 bits")
        values = np.asarray(image).astype(np.int32)
        return np.where((values == MOTS_IGNORED) | (values < MOTS_IDS), 0, mots_id(values))

    return _read_maps(path, ids_of)


def mots_id(value: Any) -> Any:
    """1005 -> 5 for class 1; other classes keep their thousands, so that ids stay different."""
    return value - MOTS_CLASS * MOTS_IDS * (value // MOTS_IDS == MOTS_CLASS)


def write_vipseg(video: TrackedVideo, out: Path) -> None:
    """VIPSeg's layout: `panomasksRGB/<video>/<frame>.png`, id = R + 256 G + 65536 B, and `panoptic_gt_VIPSeg_val.json`."""
    from entitysam.io.id_maps import write_ids

    new_folder(out)
    folder = make_folder(join_inside(out / VIPSEG_MASKS, video.id, "video"))
    categories = {label: number for number, label in enumerate(video.labels or [ENTITY])}
    frames = []
    for name, found in zip(video.frames, video.by_frame(), strict=True):
        ids = video.id_map(found)
        write_ids(_map_path(folder, name), ids)
        visible = set(np.unique(ids).tolist())
        infos = [
            {"id": entity.id, "category_id": categories[entity.label], "iscrowd": 0, "area": int((ids == entity.id).sum()),
             "bbox": list(Instance.of_mask(ids == entity.id).box), "score": instance.score}
            for entity, instance in found if entity.id in visible
        ]  # fmt: skip
        frames.append({"file_name": f"{name}.png", "image_id": name, "segments_info": infos})
    size = {"width": video.width, "height": video.height}
    images = [{"id": name, "file_name": f"{name}.png", **size} for name in video.frames]
    contents = {
        "videos": [{"video_id": video.id, "images": images}],
        "annotations": [{"video_id": video.id, "annotations": frames}],
        "categories": [{"id": number, "name": label, "isthing": 1} for label, number in categories.items()],
    }
    with whole_file(out / VIPSEG_JSON) as temporary:
        temporary.write_text(json.dumps(contents), encoding="utf-8")


@keep_other_keys
class _Segment(TypedDict):
    id: int
    category_id: int


class _Frame(TypedDict):
    file_name: str
    segments_info: list[_Segment]


class _Annotated(TypedDict):
    video_id: str | int
    annotations: list[_Frame]


@keep_other_keys
class _Category(TypedDict):
    id: int
    name: str


class _VIPSeg(TypedDict):
    annotations: list[_Annotated]
    categories: list[_Category]


class _Size(TypedDict):
    width: Side
    height: Side


def read_vipseg(path: Path) -> list[TrackedVideo]:
    """The videos of a folder in VIPSeg's layout (with any one `panoptic*.json`).

    Raises:
        InputError: a value that cannot be used.
    """
    from entitysam.io.id_maps import read_ids

    files = sorted(path.glob("panoptic*.json"))
    if len(files) != 1:
        raise InputError(f"{path}: {len(files)} files panoptic*.json instead of one")
    contents = check_type(load_json(files[0]), _VIPSeg, str(files[0]), InputError)
    names = {c["id"]: None if c["name"] == ENTITY else c["name"] for c in contents["categories"]}
    videos = []
    for annotated in contents["annotations"]:
        title, where = str(annotated["video_id"]), f"{files[0]}: video {annotated['video_id']}"
        folder = join_inside(path / VIPSEG_MASKS, title, where, follow_links=True)
        collected = Collected()
        for frame in annotated["annotations"]:
            file = join_inside(folder, frame["file_name"], where, follow_links=True)
            infos = {info["id"]: info for info in frame["segments_info"]}
            scores = {number: info.get("score", 1.0) for number, info in infos.items()}
            collected.add(file, _opened(file, lambda _, file: read_ids(file)), scores)
            for number, info in infos.items():
                if number in collected.entities:
                    collected.entities[number].name = names.get(info["category_id"])
        videos.append(collected.video(title, where))
    return videos


class Collected:
    """The id maps of a video, frame by frame."""

    def __init__(self) -> None:
        self.entities: dict[int, Entity] = {}
        self._frames: list[str] = []
        self._shape: tuple[int, ...] = ()

    def add(self, file: Path, ids: np.ndarray, scores: dict[int, float] | None = None) -> None:
        if self._shape and ids.shape != self._shape:
            raise InputError(f"{file}: is {ids.shape[1]}x{ids.shape[0]}, not {self._shape[1]}x{self._shape[0]}")
        self._shape = ids.shape
        for number in np.unique(ids[ids > 0]).tolist():
            entity = self.entities.setdefault(number, Entity(number))
            entity.instances[len(self._frames)] = Instance.of_mask(ids == number, (scores or {}).get(number, 1.0))
        self._frames.append(file.stem)

    def video(self, title: str, where: str) -> TrackedVideo:
        if not self._frames:
            raise InputError(f"{where}: no frames")
        height, width = self._shape
        for entity in self.entities.values():
            entity.score = float(np.mean([instance.score for instance in entity.instances.values()]))
        return check_video(TrackedVideo(title, width, height, self._frames, list(self.entities.values())), where)


def _check_largest(video: TrackedVideo, largest: int, what: str) -> None:
    highest = max((entity.id for entity in video.entities), default=0)
    if highest > largest:
        raise InputError(f"{video.id}: id {highest} does not fit into {what} (1..{largest}); --to vipseg holds it")


def _write_maps(video: TrackedVideo, out: Path, draw: Callable[[np.ndarray], Image.Image]) -> None:
    new_folder(out)
    for name, ids in zip(video.frames, video.id_maps(), strict=True):
        with whole_file(_map_path(out, name)) as temporary:
            draw(ids).save(temporary, format="PNG")


def _map_path(folder: Path, name: str) -> Path:
    return join_inside(folder, f"{name}.png", "frame")


def _read_maps(path: Path, ids_of: Callable[[Image.Image, Path], np.ndarray]) -> TrackedVideo:
    collected = Collected()
    for file in _images(path):
        collected.add(file, _opened(file, ids_of))
    return collected.video(path.resolve().name, str(path))


def _images(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        raise InputError(f"{path}: is no folder of PNG files")
    return iter(natsorted((file for file in path.glob("*.png") if not file.name.startswith(".")), key=str))


def _opened(file: Path, ids_of: Callable[[Image.Image, Path], np.ndarray]) -> np.ndarray:
    try:
        with Image.open(file) as image:
            return ids_of(image, file)
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{file}: cannot be read ({error})") from error
