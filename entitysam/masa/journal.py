"""What was seen on the frames of a video, on disk, so that an interrupted run need not look at them again."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from entitysam.io.files import whole_file
from entitysam.structures import Detections


@dataclass(frozen=True)
class Sighting:
    """What the tracker is given of one frame.

    Attributes:
        objects: N detections that can be tracked.
        embeddings: float32 [N, C], what they look like; None where that was not looked at.
        left_out: why detections were left out, and how many.
    """

    objects: Detections
    embeddings: np.ndarray | None
    left_out: dict[str, int] = field(default_factory=dict)


FIRST = "00000000.npz"  # the file of the first frame


class SightingJournal:
    """One file per frame in a folder; each is whole or absent.

    Args:
        folder: already there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, index: int, sighting: Sighting) -> None:
        """Keeps what was seen on frame `index`.

        Raises:
            OutputError: the folder cannot be written to.
        """
        seen = sighting.objects
        words = {"masks": seen.masks, "left_out": sighting.left_out}
        arrays: dict[str, Any] = {"boxes": seen.boxes, "scores": seen.scores, "categories": seen.categories}
        if sighting.embeddings is not None:
            arrays["embeddings"] = sighting.embeddings
        with whole_file(self._path(index)) as temporary, temporary.open("wb") as file:
            np.savez(file, words=np.array(json.dumps(words)), **arrays)

    def read(self, index: int) -> Sighting | None:
        """What was seen on frame `index`, exactly; None where it has not been looked at, or the file is damaged."""
        try:
            with np.load(self._path(index), allow_pickle=False) as kept:
                words = json.loads(str(kept["words"]))
                seen = Detections(kept["boxes"], kept["scores"], kept["categories"], words["masks"])
                return Sighting(seen, kept.get("embeddings"), words["left_out"])
        except (OSError, EOFError, ValueError, KeyError, BadZipFile):
            return None

    def _path(self, index: int) -> Path:
        return self._folder / f"{index:08d}.npz"
