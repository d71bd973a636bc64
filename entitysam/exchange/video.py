"""A video with its entities, the form between all formats; reading and writing of our own results."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pycocotools import mask as coco_mask
from pydantic import Field
from typing_extensions import NotRequired, TypedDict

from entitysam.data.masks import MaskError, read_mask
from entitysam.io.files import OutputError, make_folder
from entitysam.io.json_files import Box, Finite, check_type, load_json
from entitysam.io.paths import join_inside
from entitysam.io.readers.base import InputError
from entitysam.io.result_folder import LINES, MASKS, SEGMENTS, TRACKS

ENTITY = "entity"  # label of entities without a name
MAX_FRAMES = 2**24
Side = Annotated[int, Field(ge=1, le=2**16)]
EntityId = Annotated[int, Field(ge=1, lt=2**24)]
FrameIndex = Annotated[int, Field(ge=0, lt=MAX_FRAMES)]
Code = dict[str, Any]  # COCO run-length code, compressed


@dataclass(frozen=True)
class Instance:
    """An entity on one frame.

    Attributes:
        box: x, y, width, height in pixels.
        score: 0..1.
        mask: COCO run-length code of the frame's size; None where only the box is known.
    """

    box: tuple[float, float, float, float]
    score: float = 1.0
    mask: Code | None = None

    @classmethod
    def of_mask(cls, mask: np.ndarray | Code, score: float = 1.0) -> "Instance":
        """From a mask bool [H, W] or its code; the box is around it."""
        code = encode(mask) if isinstance(mask, np.ndarray) else mask
        x, y, width, height = (int(value) for value in coco_mask.toBbox(code))
        return cls((x, y, width, height), score, code)

    @property
    def area(self) -> float:
        """Pixels of the mask, or of the box where there is none."""
        return self.box[2] * self.box[3] if self.mask is None else int(coco_mask.area(self.mask))


@dataclass
class Entity:
    """An entity of a video.

    Attributes:
        id: 1..2^24 - 1.
        score: over the video, 0..1.
        name: None where it has none.
        instances: by the index of the frame.
    """

    id: int
    score: float = 1.0
    name: str | None = None
    instances: dict[int, Instance] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return self.name or ENTITY


@dataclass
class TrackedVideo:
    """The entities of a video.

    Attributes:
        id: name of the video.
        width, height: of the frames in pixels.
        frames: names of the T frames.
        entities: sorted by id.
        fps: None where it is not known.
        times: seconds of each frame from the first; None where they are not known.
        source: keyword arguments of `open_frames`; None where the result does not know its input.
    """

    id: str
    width: int
    height: int
    frames: list[str]
    entities: list[Entity]
    fps: float | None = None
    times: list[float | None] = field(default_factory=list)
    source: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self.entities.sort(key=lambda entity: entity.id)
        self.times = self.times or [None] * len(self.frames)

    def by_frame(self) -> list[list[tuple[Entity, Instance]]]:
        """The entities on each of the T frames, sorted by id."""
        found: list[list[tuple[Entity, Instance]]] = [[] for _ in self.frames]
        for entity in self.entities:
            for index, instance in entity.instances.items():
                found[index].append((entity, instance))
        return found

    def id_maps(self) -> Iterator[np.ndarray]:
        """The map int32 [H, W] of each frame, 0 = none. Where masks overlap, the smallest is on top."""
        for found in self.by_frame():
            yield self.id_map(found)

    def id_map(self, found: Iterable[tuple[Entity, Instance]]) -> np.ndarray:
        ids = np.zeros((self.height, self.width), np.int32)
        masked = [(entity.id, instance) for entity, instance in found if instance.mask is not None]
        for number, instance in sorted(masked, key=lambda item: -item[1].area):
            ids[decode(instance.mask)] = number  # type: ignore[arg-type]
        return ids

    @property
    def has_masks(self) -> bool:
        return any(instance.mask is not None for entity in self.entities for instance in entity.instances.values())

    @property
    def labels(self) -> list[str]:
        """All labels, in the order of the entities."""
        return list(dict.fromkeys(entity.label for entity in self.entities))


def encode(mask: np.ndarray) -> Code:
    """COCO run-length code of a mask [H, W]."""
    code = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": [int(side) for side in code["size"]], "counts": code["counts"].decode("ascii")}


def decode(code: Code) -> np.ndarray:
    """bool [H, W]."""
    return coco_mask.decode(code).astype(bool)


def checked_mask(code: Any, video: tuple[int, int], where: str) -> Code:
    """A mask that comes from a file, as compressed code of a frame of (width, height).

    Raises:
        InputError: it cannot be used.
    """
    try:
        return read_mask(code, video[1], video[0])
    except MaskError as error:
        raise InputError(f"{where}: {error}") from error


class _Frame(TypedDict):
    frame: FrameIndex
    score: Finite
    bbox: Box
    segmentation: NotRequired[dict[str, Any]]


class _Track(TypedDict):
    id: EntityId
    score: Finite
    name: NotRequired[str | None]
    frames: list[_Frame]


class _Tracks(TypedDict):
    video_id: str
    width: Side
    height: Side
    fps: Annotated[float, Field(gt=0, le=1e6)] | None
    frames: list[str]
    times: NotRequired[list[Finite | None]]
    source: NotRequired[dict[str, Any] | None]
    tracks: list[_Track]


def read_result(folder: Path) -> TrackedVideo:
    """A result folder of `entitysam segment`, `track` or `label`.

    Raises:
        InputError: no finished result, or a value that cannot be used.
    """
    path = folder / TRACKS
    if not path.is_file():
        raise InputError(f"{folder}: no finished result of entitysam ({TRACKS} is missing)")
    contents = check_type(load_json(path), _Tracks, str(path), InputError)
    frames, size = contents["frames"], (contents["width"], contents["height"])
    entities = []
    for track in contents["tracks"]:
        entity = Entity(track["id"], track["score"], track.get("name"))
        for record in track["frames"]:
            where = f"{path}: track {track['id']}: frame {record['frame']}"
            code = record.get("segmentation")
            mask = None if code is None else checked_mask(code, size, where)
            x, y, width, height = record["bbox"]
            entity.instances[record["frame"]] = Instance((x, y, width, height), record["score"], mask)
        entities.append(entity)
    video = TrackedVideo(contents["video_id"], *size, frames, entities, contents["fps"], contents.get("times") or [],
                         contents.get("source"))  # fmt: skip
    return check_video(video, str(path))


def check_video(video: TrackedVideo, where: str) -> TrackedVideo:
    """The video, if it can be a result.

    Raises:
        InputError: an id or frame name twice, an instance on a frame that is not there, times of another number.
    """
    if len(video.frames) > MAX_FRAMES:
        raise InputError(f"{where}: more than {MAX_FRAMES} frames")
    if len(set(video.frames)) != len(video.frames):
        raise InputError(f"{where}: the name of a frame occurs twice")
    if len(video.times) != len(video.frames):
        raise InputError(f"{where}: {len(video.times)} times for {len(video.frames)} frames")
    numbers = [entity.id for entity in video.entities]
    if len(set(numbers)) != len(numbers):
        raise InputError(f"{where}: an id occurs twice")
    for entity in video.entities:
        if not 1 <= entity.id < 2**24:
            raise InputError(f"{where}: id {entity.id} is not in 1..2^24 - 1")
        last = max(entity.instances, default=0)
        if entity.instances and (last >= len(video.frames) or min(entity.instances) < 0):
            raise InputError(f"{where}: entity {entity.id} is on frame {last} of {len(video.frames)}")
    return video


def write_result(video: TrackedVideo, out: Path) -> None:
    """Writes a result folder without the files that show frames: `tracks.json`, and with masks `segments.json` and `masks/`.

    Raises:
        OutputError: the folder is not empty or cannot be written to.
    """
    from entitysam.io.id_maps import write_ids
    from entitysam.io.writers.annotations import SegmentsWriter, TracksWriter, describe_entities

    new_folder(out)
    names = _names(video)
    tracks = TracksWriter(video.id, video.width, video.height, video.fps, video.source, names)
    segments = None
    try:
        if video.has_masks:
            make_folder(out / MASKS)
            segments = SegmentsWriter(out / SEGMENTS, video.id, names)
        for name, time, found in zip(video.frames, video.times, video.by_frame(), strict=True):
            tracks.add(name, [_record(*item) for item in found], {e.id: i.score for e, i in found}, time)
            if segments is not None:
                path = join_inside(out / MASKS, f"{name}.png", f"{video.id}: frame")
                if path.parent != out / MASKS:
                    raise InputError(f"{video.id}: the frame name {name[:60]!r} is no plain file name")
                ids = video.id_map(found)
                segments.add(path.name, describe_entities(ids), time, {e.id: i.score for e, i in found})
                write_ids(path, ids)
        files = [TRACKS, *([SEGMENTS, LINES] if segments is not None else [])]
        scores = {entity.id: entity.score for entity in video.entities}
        tracks.write(out / TRACKS, scores, files)
        if segments is not None:
            segments.write()
    finally:
        tracks.close()
        if segments is not None:
            segments.close()


def _record(entity: Entity, instance: Instance) -> dict[str, Any]:
    record = {"id": entity.id, "bbox": list(instance.box)}
    return record if instance.mask is None else {**record, "area": instance.area, "segmentation": instance.mask}


def _names(video: TrackedVideo) -> Any:
    from entitysam.io.writers.annotations import EntityNames

    names = list(dict.fromkeys(entity.name for entity in video.entities if entity.name is not None))
    if not names:
        return None
    categories = [{"id": index, "name": name, "isthing": 1} for index, name in enumerate(names, start=1)]
    category_of = {entity.id: names.index(entity.name) + 1 for entity in video.entities if entity.name is not None}
    return EntityNames(categories, category_of, dict.fromkeys(category_of, 1.0))


def new_folder(out: Path) -> Path:
    """Creates a folder for files of a conversion.

    Raises:
        OutputError: it is there and not empty, or cannot be created.
    """
    with suppress(NotADirectoryError):
        if out.exists() and any(out.iterdir()):
            raise OutputError(f"{out}: is not empty; choose another place with -o")
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: exists; choose another place with -o")
    return make_folder(out)


def new_file(out: Path) -> Path:
    """A file that a conversion may write; its folder is created.

    Raises:
        OutputError: it exists, or its folder cannot be created.
    """
    if out.exists():
        raise OutputError(f"{out}: exists; choose another place with -o")
    make_folder(out.parent)
    return out
