"""Detections and embeddings of each frame as records, so that a resumed run does not compute them again."""

import io
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from entitysam.io.record_store import RecordStore
from entitysam.structures import Detections


@dataclass(frozen=True)
class FrameDetections:
    """Input of the tracker for one frame.

    Attributes:
        objects: N detections that can be tracked.
        embeddings: float32 [N, C]; None without a network.
        rejected: reason -> number of detections that were left out for it.
    """

    objects: Detections
    embeddings: np.ndarray | None
    rejected: dict[str, int] = field(default_factory=dict)


class DetectionCache:
    """The detections of a video, one record per frame.

    Args:
        records: store of the run.
    """

    def __init__(self, records: RecordStore) -> None:
        self._records = records

    def write(self, index: int, found: FrameDetections) -> None:
        """Stores the detections of frame `index`.

        Raises:
            OutputError: the store cannot be written to.
        """
        objects = found.objects
        metadata = {"masks": objects.masks, "rejected": found.rejected}
        arrays: dict[str, Any] = {"boxes": objects.boxes, "scores": objects.scores, "categories": objects.categories}
        if found.embeddings is not None:
            arrays["embeddings"] = found.embeddings
        buffer = io.BytesIO()
        np.savez(buffer, metadata=np.array(json.dumps(metadata)), **arrays)
        self._records.write(_key(index), buffer.getvalue())

    def read(self, index: int) -> FrameDetections | None:
        """The detections of frame `index`, bit for bit; None if they are not stored or the record is damaged."""
        payload = self._records.read(_key(index))
        if payload is None:
            return None
        with np.load(io.BytesIO(payload), allow_pickle=False) as stored:
            metadata = json.loads(str(stored["metadata"]))
            objects = Detections(stored["boxes"], stored["scores"], stored["categories"], metadata["masks"])
            return FrameDetections(objects, stored.get("embeddings"), metadata["rejected"])


def _key(index: int) -> str:
    return f"detections_{index:08d}"
