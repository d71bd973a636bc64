"""The Parquet files of a job: their columns, and the writer of one video."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from entitysam.io.files import output_errors, whole_file
from entitysam.io.record_store import file_stem

ENTITIES, VIDEOS, FOLDERS, PREVIEWS = "entities", "videos.parquet", "videos", "previews"
KEY = b"entitysam"  # of the description of a video in the metadata of its file
ROWS = 20_000  # in a row group: about 5 MB of masks in memory

ENTITY_SCHEMA = pa.schema(
    [
        pa.field("video", pa.string()),
        pa.field("entity", pa.int32()),
        pa.field("frame", pa.int32()),
        pa.field("time", pa.float64()),
        pa.field("score", pa.float64()),
        pa.field("x", pa.int32()),
        pa.field("y", pa.int32()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("area", pa.int64()),
        # A COCO run-length code, as pycocotools takes it.
        pa.field("rle", pa.struct([pa.field("size", pa.list_(pa.int32())), pa.field("counts", pa.string())])),
    ]
)
VIDEO_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("path", pa.string()),
        pa.field("start", pa.float64()),
        pa.field("end", pa.float64()),
        pa.field("status", pa.string()),
        pa.field("file", pa.string()),
        pa.field("frames", pa.int32()),
        pa.field("entities", pa.int32()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("fps", pa.float64()),
        pa.field("seconds", pa.float64()),
        pa.field("error", pa.string()),
        pa.field("warnings", pa.string()),
        pa.field("worker", pa.string()),
    ]
)


def video_file(out: Path, video_id: str) -> Path:
    """The Parquet file of a video below the output of its job."""
    return out / ENTITIES / f"{file_stem(video_id)}.parquet"


class VideoTable:
    """Writes the entities of one video frame by frame; used in a `with` block that ends with `finish`.

    The file is complete or absent. Rows are sorted by frame, then by entity.

    Args:
        path: of the file; its folder exists.
        video_id: the video's name in the rows.

    Raises:
        OutputError: the file cannot be written.
    """

    def __init__(self, path: Path, video_id: str) -> None:
        self._path, self._video_id = path, video_id
        self._names: list[str] = []
        self._times: list[float | None] = []
        self._seen: set[int] = set()
        self._columns: dict[str, list[Any]] = {name: [] for name in ENTITY_SCHEMA.names}
        self._file = whole_file(path)
        self._temporary = self._file.__enter__()
        self._writer: pq.ParquetWriter | None = None
        try:
            with output_errors(path):
                self._writer = pq.ParquetWriter(self._temporary, ENTITY_SCHEMA, compression="zstd")
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise

    @property
    def num_frames(self) -> int:
        return len(self._names)

    @property
    def num_entities(self) -> int:
        return len(self._seen)

    def add(self, name: str, ids: np.ndarray, scores: Mapping[int, float], time: float | None = None) -> None:
        """Appends one frame.

        Args:
            name: of the frame.
            ids: int [H, W]; 0 = no entity.
            scores: score on this frame, 0..1, of (at least) the ids in `ids`.
            time: seconds from the first frame; None where the input has no times.
        """
        from entitysam.io.writers.annotations import describe_entities  # imports torch, which a driver does without

        columns = self._columns
        for entity in describe_entities(ids):
            number = entity["id"]
            values = (self._video_id, number, self.num_frames, time, float(scores[number]), *entity["bbox"])
            for column, value in zip(columns.values(), (*values, entity["area"], entity["segmentation"]), strict=True):
                column.append(value)
            self._seen.add(number)
        self._names.append(name)
        self._times.append(time)
        if len(columns["frame"]) >= ROWS:
            self._flush()

    def _flush(self) -> None:
        assert self._writer is not None
        if self._columns["frame"]:
            with output_errors(self._path):
                self._writer.write_table(pa.table(self._columns, schema=ENTITY_SCHEMA))
            self._columns = {name: [] for name in ENTITY_SCHEMA.names}

    def finish(self, scores: Mapping[int, float], video: Mapping[str, Any]) -> None:
        """Writes the rest of the rows and the description of the video.

        Args:
            scores: score over the video, 0..1, of (at least) every id that was seen.
            video: further keys of the description, as plain data.
        """
        assert self._writer is not None
        described = {**video, "id": self._video_id, "frames": self._names, "times": self._times}
        described["scores"] = {str(number): float(scores[number]) for number in sorted(self._seen)}
        self._flush()
        with output_errors(self._path):
            self._writer.add_key_value_metadata({KEY.decode(): json.dumps(described)})
            self._writer.close()

    def __enter__(self) -> "VideoTable":
        return self

    def __exit__(self, kind: Any, value: Any, traceback: Any) -> None:
        try:
            if kind is not None and self._writer is not None:
                self._writer.close()
        except OSError:  # on a full disk what is buffered cannot be written
            pass
        finally:
            self._file.__exit__(kind, value, traceback)


def read_description(path: Path) -> dict[str, Any]:
    """What the metadata of a video's file say about it; {} where it is not one of ours or cannot be read."""
    try:
        metadata = pq.read_metadata(path).metadata or {}
        described = json.loads(metadata.get(KEY, b"{}"))
    except (OSError, ValueError, RecursionError):
        return {}
    return described if isinstance(described, dict) else {}
