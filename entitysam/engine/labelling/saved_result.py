"""Reads the result folder of a segmented video. The folder may be of unknown origin: its contents are checked."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from typing_extensions import NotRequired, TypedDict

from entitysam.classification.masklets import MapMasklets
from entitysam.io.id_maps import read_ids
from entitysam.io.json_files import Finite, JsonError, read_json
from entitysam.io.paths import UnsafePathError, join_inside
from entitysam.io.readers.source import FrameSource, InputError
from entitysam.io.result_folder import MASKS, MOT, SEGMENTS, TRACKS, recorded_origin

MAX_SCORES = 2**27  # entities x frames, 1 GiB
PLAIN = re.compile(r"[0-9A-Za-z_-]{1,200}")  # names of frames that are file names everywhere
NOTHING = re.compile(r"(?!)")
Size = Annotated[int, Field(ge=1, le=2**16)]
EntityId = Annotated[int, Field(ge=1, lt=2**24)]  # as many as an RGB PNG can hold
Area = Annotated[int, Field(ge=0, lt=2**31)]
FrameIndex = Annotated[int, Field(ge=0, lt=2**31)]


class _TrackFrame(TypedDict):
    frame: FrameIndex
    score: Finite
    area: NotRequired[Area]


class _Track(TypedDict):
    id: EntityId
    score: Finite
    frames: list[_TrackFrame]
    name: NotRequired[str | None]


class _Source(TypedDict, total=False):
    source: str
    stride: Annotated[int, Field(ge=1, le=2**31)]
    max_frames: Annotated[int, Field(ge=1, le=2**53)] | None
    start: Finite | None
    end: Finite | None


class _Contents(TypedDict):
    video_id: str
    width: Size
    height: Size
    fps: Annotated[float, Field(gt=0, le=1e6)] | None
    frames: list[str]
    tracks: list[_Track]
    times: NotRequired[list[Finite | None]]
    files: NotRequired[list[str]]
    source: NotRequired[_Source | None]


@dataclass(frozen=True)
class SavedResult:
    """A result folder of `io.writers.segments.ResultWriter`.

    The n entities are numbered 1..n here, whatever their ids are.

    Attributes:
        folder: the folder.
        video_id, width, height, fps: as in `tracks.json`.
        source: keyword arguments of `io.readers.source.open_frames`; None where the result does not know its input.
        frames: names of the T frames.
        times: seconds of each frame from the first; None where the input has no times.
        files: names of the files that the run wrote.
        ids: int64 [n] entity ids, ascending.
        scores: float [n] score over the video.
        frame_scores: float [n, T] score per frame, 0 where the entity is not visible.
        areas: int32 [n, T] pixels per frame; 0 where the file has none.
        names: of the entities, "" where there is none.
    """

    folder: Path
    video_id: str
    width: int
    height: int
    fps: float | None
    source: dict[str, Any] | None
    frames: list[str]
    times: list[float | None]
    files: list[str]
    ids: np.ndarray
    scores: np.ndarray
    frame_scores: np.ndarray
    areas: np.ndarray
    names: list[str]

    @classmethod
    def read(cls, folder: Path, boxes: bool = False) -> "SavedResult":
        """Reads and checks the result of a finished run.

        Args:
            folder: of the result.
            boxes: a result of `entitysam track` without masks is taken, too.

        Raises:
            InputError: no finished result, a file that cannot be read, a value out of its range, or a frame name that
                leaves the folder.
        """
        is_boxes = has_only_boxes(folder)
        if not (folder / SEGMENTS).is_file() and not (boxes and is_boxes):
            if is_boxes:
                raise InputError(f"{folder}: a result of 'entitysam track' without masks; masks are needed here")
            raise InputError(f"{folder}: no finished result of 'entitysam segment' ({SEGMENTS} is missing)")
        path = folder / TRACKS
        try:
            contents = read_json(path, _Contents, InputError)
        except JsonError as error:
            raise InputError(str(error)) from error
        frames = contents["frames"]
        if len(set(frames)) != len(frames):
            raise InputError(f"{path}: frames: a name occurs twice")
        _check_names(folder, frames, str(path))
        tracks = sorted(contents["tracks"], key=lambda track: track["id"])
        ids = np.array([track["id"] for track in tracks], np.int64)
        if len(set(ids.tolist())) != len(ids):
            raise InputError(f"{path}: tracks: an id occurs twice")
        if len(ids) * len(frames) > MAX_SCORES:
            raise InputError(f"{path}: {len(ids)} entities on {len(frames)} frames are too many")
        frame_scores = np.zeros((len(ids), len(frames)))
        areas = np.zeros((len(ids), len(frames)), np.int32)
        for row, area, track in zip(frame_scores, areas, tracks):
            for record in track["frames"]:
                if record["frame"] >= len(frames):
                    raise InputError(f"{path}: track {track['id']}: frame {record['frame']} of {len(frames)} frames")
                row[record["frame"]] = record["score"]
                area[record["frame"]] = record.get("area", 0)
        head = {key: contents[key] for key in ("video_id", "width", "height", "fps")}
        times = contents.get("times", [None] * len(frames))
        if len(times) != len(frames):
            raise InputError(f"{path}: {len(times)} times for {len(frames)} frames")
        scores = np.array([track["score"] for track in tracks], float)
        return cls(
            folder,
            **head,
            source=contents.get("source"),
            frames=frames,
            times=times,
            files=contents.get("files", []),
            ids=ids,
            scores=scores,
            frame_scores=frame_scores,
            areas=areas,
            names=[track.get("name") or "" for track in tracks],
        )

    def local_source(self) -> dict[str, Any]:
        """`source`, if it is files on this machine; a result must not make the program open addresses or devices.

        Raises:
            InputError: the result does not name its input, or it is no file, folder or glob of files here.
        """
        origin = recorded_origin(self.folder, {"source": self.source})
        if origin is None:
            raise InputError(f"{self.folder}: the result does not name its frames; give --input")
        return origin

    def masklets(self) -> MapMasklets:
        """The masks of entities 1..n, from the id maps on disk."""
        return MapMasklets(lambda: map(self._read_entities, self.frames), len(self.ids))

    def iter_ids(self) -> Iterator[np.ndarray]:
        """The id map of each frame, int32 [H, W], with the ids of the result."""
        return map(self._read_ids, self.frames)

    def _read_entities(self, frame: str) -> np.ndarray:
        """int32 [H, W] of a frame with 1..n instead of ids; 0 = none."""
        ids = self._read_ids(frame)
        entities = np.searchsorted(self.ids, ids) + 1  # position in the sorted ids
        listed = np.isin(ids, self.ids)
        if (ids[~listed] != 0).any():
            unlisted = int(ids[~listed].max())
            raise InputError(f"{self.folder / MASKS}: frame {frame} has id {unlisted}, which {TRACKS} does not list")
        return np.where(listed, entities, 0).astype(np.int32)

    def _read_ids(self, frame: str) -> np.ndarray:
        path = self.folder / MASKS / f"{frame}.png"
        try:
            ids = read_ids(path)
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(f"{path}: cannot be read ({error})") from error
        if ids.shape != (self.height, self.width):
            raise InputError(f"{path}: is {ids.shape[1]}x{ids.shape[0]}, but the frames are {self.width}x{self.height}")
        return ids

    def check_frames(self, source: FrameSource) -> None:
        """Compares the size of the frames with the result's.

        Raises:
            InputError: they differ.
        """
        if (source.width, source.height) != (self.width, self.height):
            raise InputError(
                f"{self.folder}: its frames are {self.width}x{self.height}, those given {source.width}x{source.height}"
            )


def has_only_boxes(folder: Path) -> bool:
    """Whether a folder has a result of `entitysam track` without masks."""
    return (folder / MOT).is_file() and not (folder / SEGMENTS).is_file()


def _check_names(folder: Path, frames: list[str], where: str) -> None:
    """`mask_path` for all frames; most names need no look of their own.

    Raises:
        InputError: as `mask_path`.
    """
    masks = folder / MASKS
    links: set[str] = set()
    if masks.is_dir() and not masks.is_symlink():
        with os.scandir(masks) as entries:
            links = {entry.name for entry in entries if entry.is_symlink()}
        plain = PLAIN.fullmatch
    else:
        plain = NOTHING.fullmatch
    for index, name in enumerate(frames):
        if not plain(name) or f"{name}.png" in links:
            mask_path(folder, name, f"{where}: frames[{index}]")


def mask_path(folder: Path, frame: str, where: str) -> Path:
    """The mask file of a frame below a result folder that may be written to.

    Raises:
        InputError: the name is no plain file name, or the path leads through a symbolic link.
    """
    try:
        join_inside(folder / MASKS, f"{frame}.png", where, follow_links=True)  # the name alone
        path = join_inside(folder, f"{MASKS}/{frame}.png", where)  # and the links on the way to it
    except UnsafePathError as error:
        raise InputError(str(error)) from error
    if path.parent != folder / MASKS or "\\" in frame:
        raise InputError(f"{where}: the frame name {frame[:60]!r} is no plain file name")
    return path
