"""Reads the output of a job: `entitysam.open_results`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pycocotools import mask as coco_mask

from entitysam.bulk.settings import DONE
from entitysam.bulk.tables import ENTITIES, ENTITY_SCHEMA, VIDEOS, read_description
from entitysam.io.paths import join_inside
from entitysam.io.readers.base import InputError
from entitysam.io.result_folder import READING

if TYPE_CHECKING:
    import polars


def open_results(folder: str | Path) -> "Results":
    """The output of `entitysam bulk`.

    Args:
        folder: of the output.

    Raises:
        InputError: no finished output of a job; `entitysam bulk --resume` finishes it.
    """
    return Results(Path(folder))


class Results(Mapping[str, "VideoResults"]):
    """The results of many videos, read when they are asked for: `results["clip"]`, `for name in results`.

    Attributes:
        folder: of the output.
        videos: table of the videos: id, path, start, end, status, file, frames, entities, width, height, fps, seconds, error,
            warnings, worker.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / VIDEOS
        if not path.is_file():
            raise InputError(f"{folder}: no finished output of 'entitysam bulk' ({VIDEOS} is missing)")
        try:
            self.videos: pa.Table = pq.read_table(path, partitioning=None)
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{path}: cannot be read ({error})") from error
        if not {"id", "status", "file"} <= set(self.videos.schema.names):
            raise InputError(f"{path}: is no list of videos of 'entitysam bulk'")

    @cached_property
    def _files(self) -> dict[str, str]:
        rows = zip(*(self.videos.column(name).to_pylist() for name in ("id", "status", "file")))
        return {name: file for name, status, file in rows if status == DONE}

    @cached_property
    def dataset(self) -> ds.Dataset:
        """All rows of all videos as a `pyarrow.dataset`; nothing is read yet."""
        files = [str(self._path(name)) for name in self._files]
        if not files:
            return ds.dataset(ENTITY_SCHEMA.empty_table())
        return ds.dataset(files, schema=ENTITY_SCHEMA, format="parquet")

    def to_table(self, columns: Sequence[str] | None = None, filter: ds.Expression | None = None) -> pa.Table:
        """The rows of all videos, e.g. `to_table(["video", "entity"], ds.field("area") > 100)`."""
        return self.dataset.to_table(columns=None if columns is None else list(columns), filter=filter)

    def to_pandas(self, columns: Sequence[str] | None = None, filter: ds.Expression | None = None) -> Any:
        """As `to_table`, as a pandas `DataFrame`."""
        return self.to_table(columns, filter).to_pandas()

    def to_polars(self) -> "polars.LazyFrame":
        """All rows as a polars `LazyFrame`, which reads what a query needs."""
        import polars

        return polars.scan_pyarrow_dataset(self.dataset)

    def __getitem__(self, video_id: str) -> "VideoResults":
        if video_id not in self._files:
            raise KeyError(f"{self.folder}: no finished video '{video_id}'")
        return VideoResults.read(self._path(video_id))

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def _path(self, video_id: str) -> Path:
        file = join_inside(self.folder, self._files[video_id], f"{self.folder / VIDEOS}: {video_id}", follow_links=True)
        if file.parent != self.folder / ENTITIES:
            raise InputError(f"{self.folder / VIDEOS}: {video_id}: '{self._files[video_id]}' is not in {ENTITIES}")
        return file


@dataclass(frozen=True)
class VideoResults:
    """The entities of one video.

    Attributes:
        path: of its Parquet file.
        id, source: its name, and the path or address of the video.
        width, height: of the frames in pixels.
        fps: None where the input has no rate.
        frames: names of the T frames.
        times: seconds of each frame from the first; None where the input has no times.
        scores: entity -> score over the video, 0..1.
        reading: which frames of the source were read: `stride`, `max_frames`, `start`, `end` of `open_frames`, where they are known.
    """

    path: Path
    id: str
    source: str
    width: int
    height: int
    fps: float | None
    frames: list[str]
    times: list[float | None]
    scores: dict[int, float]
    reading: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> "VideoResults":
        """The description of a video; its rows are read by `table`.

        Raises:
            InputError: not a file of a job.
        """
        described = read_description(path)
        try:
            return cls(
                path,
                described["id"],
                described["path"],
                described["width"],
                described["height"],
                described["fps"],
                described["frames"],
                described["times"],
                {int(number): score for number, score in described["scores"].items()},
                {key: described[key] for key in READING if key in described},
            )
        except (KeyError, AttributeError, ValueError) as error:
            raise InputError(f"{path}: is no result of a video of 'entitysam bulk'") from error

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Its rows, sorted by frame, then by entity."""
        return pq.read_table(self.path, columns=None if columns is None else list(columns), partitioning=None)

    def rows(self) -> Iterator[list[dict[str, Any]]]:
        """The rows of each of the T frames."""
        frame = 0
        waiting: list[dict[str, Any]] = []
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(1000):
                for row in batch.to_pylist():
                    while row["frame"] > frame:
                        yield waiting
                        frame, waiting = frame + 1, []
                    waiting.append(row)
        for _ in range(frame, len(self.frames)):
            yield waiting
            waiting = []

    def iter_ids(self) -> Iterator[np.ndarray]:
        """The id map of each frame, int32 [H, W]; 0 = no entity."""
        for rows in self.rows():
            ids = np.zeros((self.height, self.width), np.int32)
            for row in rows:
                ids[_decode(row["rle"])] = row["entity"]
            yield ids

    def masks(self, entity: int) -> Iterator[tuple[int, np.ndarray]]:
        """The frames of an entity and its masks there, bool [H, W]."""
        table = pq.read_table(
            self.path, columns=["frame", "rle"], filters=[("entity", "==", entity)], partitioning=None
        )
        for frame, rle in zip(table.column("frame").to_pylist(), table.column("rle").to_pylist()):
            yield frame, _decode(rle)


def _decode(rle: dict[str, Any]) -> np.ndarray:
    """bool [H, W]; `ops.rle_decode` would import torch."""
    return coco_mask.decode(rle).astype(bool)
