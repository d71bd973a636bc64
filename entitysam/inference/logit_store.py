"""Low-resolution logits of a video on disk, so that memory does not grow with its length and a run can be resumed."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

LOGITS, SCORES, STATE = "logits.f32", "scores.f32", "state.pt"


class Spool:
    """Records of fixed size, one per frame, in two files: filled mask logits, and scores (warm-up passes included).

    Args:
        folder: where to keep them (for resuming), or None for a temporary folder that goes with this object.
    """

    def __init__(self, folder: Path | None = None):
        self._temporary = tempfile.TemporaryDirectory(prefix="entitysam_") if folder is None else None
        self.folder = Path(self._temporary.name) if self._temporary is not None else Path(folder)  # type: ignore[arg-type]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.shape: tuple[int, int, int] = (0, 0, 0)  # Q, h, w
        self.num_frames = 0
        self._files: dict[str, BinaryIO] = {}

    def open(self, shape: tuple[int, int, int], num_frames: int, num_scores: int) -> None:
        """Begins to write behind the first `num_frames` logits and `num_scores` scores that are already there."""
        self.shape, self.num_frames = shape, num_frames
        for name, size in ((LOGITS, num_frames * self._record), (SCORES, num_scores * 4 * shape[0])):
            path = self.folder / name
            path.touch()
            os.truncate(path, size)
            self._files[name] = path.open("ab")

    @property
    def _record(self) -> int:
        return 4 * self.shape[0] * self.shape[1] * self.shape[2]

    def add_score(self, score: Tensor) -> None:
        """Appends the scores [Q] of one pass."""
        self._files[SCORES].write(score.detach().float().cpu().numpy().tobytes())

    def add_logits(self, mask_logits: Tensor) -> None:
        """Appends the filled logits [Q, h, w] of one frame."""
        self._files[LOGITS].write(mask_logits.detach().float().cpu().numpy().tobytes())
        self.num_frames += 1

    def flush(self) -> None:
        for file in self._files.values():
            file.flush()

    def scores(self) -> np.ndarray:
        """float32 [passes, Q]."""
        self.flush()
        return np.fromfile(self.folder / SCORES, np.float32).reshape(-1, self.shape[0])

    def chunks(self, device: torch.device, frames_per_chunk: int = 4) -> Iterator[Tensor]:
        """The logits in order: [Q, t, h, w] with t <= frames_per_chunk."""
        self.flush()
        with (self.folder / LOGITS).open("rb") as file:
            for start in range(0, self.num_frames, frames_per_chunk):
                count = min(frames_per_chunk, self.num_frames - start)
                values = np.frombuffer(file.read(count * self._record), np.float32).reshape(count, *self.shape)
                yield torch.from_numpy(values.copy()).to(device).transpose(0, 1)

    def save_state(self, state: dict[str, Any]) -> None:
        """Keeps what a resumed run starts from; replaces the former one in one step."""
        self.flush()
        partial = self.folder / (STATE + ".partial")
        torch.save(state, partial)
        os.replace(partial, self.folder / STATE)

    def load_state(self, device: torch.device) -> dict[str, Any] | None:
        """What `save_state` kept, or None."""
        path = self.folder / STATE
        return torch.load(path, map_location=device, weights_only=True) if path.is_file() else None

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()
