"""Detections and embeddings of each frame on disk, so that a resumed run does not compute them again."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from entitysam.io.files import whole_file
from entitysam.structures import Detections

FIRST = "00000000.npz"  # the file of the first frame


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
    """One file per frame in a folder. Each file is complete or absent.

    Args:
        folder: an existing folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, index: int, found: FrameDetections) -> None:
        """Stores the detections of frame `index`.

        Raises:
            OutputError: the folder cannot be written to.
        """
        objects = found.objects
        metadata = {"masks": objects.masks, "rejected": found.rejected}
        arrays: dict[str, Any] = {"boxes": objects.boxes, "scores": objects.scores, "categories": objects.categories}
        if found.embeddings is not None:
            arrays["embeddings"] = found.embeddings
        with whole_file(self._path(index)) as temporary, temporary.open("wb") as file:
            np.savez(file, metadata=np.array(json.dumps(metadata)), **arrays)

    def read(self, index: int) -> FrameDetections | None:
        """The detections of frame `index`, bit for bit; None if they are not stored or the file is damaged."""
        try:
            with np.load(self._path(index), allow_pickle=False) as stored:
                metadata = json.loads(str(stored["metadata"]))
                objects = Detections(stored["boxes"], stored["scores"], stored["categories"], metadata["masks"])
                return FrameDetections(objects, stored.get("embeddings"), metadata["rejected"])
        except (OSError, EOFError, ValueError, KeyError, BadZipFile):
            return None

    def _path(self, index: int) -> Path:
        return self._folder / f"{index:08d}.npz"
