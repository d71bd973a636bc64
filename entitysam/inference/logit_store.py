"""Mask logits of a video on disk, so that memory does not grow with the length of the video.

They are kept as float16, half the size of float32: 6.3 MiB a frame for 50 entities at 1024 x 1024 (a logit map is a quarter of
the input's side). The rounding is at most 2^-11 of a logit's value and keeps its sign; on two clips with the tiny model it
changed no entity and at most 2 of 10,000 pixels of the maps. Logits that were computed in bf16 are stored exactly.
"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from entitysam.io.files import OutputError
from entitysam.io.record_store import HEADER, RecordStore

LARGEST = float(np.finfo(np.float16).max)
GIB = 2**30


class LogitStore:
    """Mask logits of a video, and what its queries look like where ids need it; a record per frame.

    Args:
        records: store of a resumable run; None: a temporary folder, which is removed with this object.

    Attributes:
        records: the store.
        shape: (Q, h, w) of a frame.
    """

    def __init__(self, records: RecordStore | None = None) -> None:
        self._temporary = None
        if records is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="entitysam_")
            records = RecordStore(Path(self._temporary.name))
        self.records: RecordStore = records
        self.shape: tuple[int, int, int] = (0, 0, 0)

    def check_space(self, num_frames: int) -> None:
        """Checks that the logits of so many more frames of `shape` fit on the disk.

        Raises:
            OutputError: they do not; the message names the folder and both sizes.
        """
        needed = num_frames * (HEADER.size + 2 * int(np.prod(self.shape)))
        folder = self.records.folder
        free = shutil.disk_usage(folder).free
        if needed > free:
            remedy = (
                "set TMPDIR to a larger disk" if self._temporary is not None else "choose an output on a larger disk"
            )
            raise OutputError(
                f"{folder}: the mask logits of {num_frames} frames need {needed / GIB:.2f} GiB there, "
                f"{free / GIB:.2f} GiB are free; {remedy}"
            )

    def write(self, index: int, mask_logits: Tensor) -> None:
        """Writes the filled logits [Q, h, w] of frame `index`.

        Raises:
            OutputError: the disk is full or cannot be written to; the message names the file.
        """
        self.shape = tuple(mask_logits.shape)  # type: ignore[assignment]
        rounded = mask_logits.detach().clamp(-LARGEST, LARGEST).half()
        self.records.write(_key(index), rounded.cpu().numpy().tobytes())

    def read(self, index: int) -> Tensor:
        """The logits of frame `index`, float16 [Q, h, w] on the CPU.

        Raises:
            ValueError: the record is missing or damaged.
        """
        payload = self.records.read(_key(index))
        if payload is None or len(payload) != 2 * int(np.prod(self.shape)):
            raise ValueError(
                f"{self.records.folder}: the mask logits of frame {index} are damaged; start without --resume"
            )
        values = np.frombuffer(payload, np.float16).reshape(self.shape)
        return torch.from_numpy(values.copy())

    def write_appearance(self, index: int, appearance: Tensor) -> None:
        """Writes what the queries of frame `index` show, [Q, C] of unit length or zero; kept as float16.

        Raises:
            OutputError: see `write`.
        """
        self.records.write(_appearance_key(index), appearance.half().numpy().tobytes())

    def read_appearance(self, index: int) -> Tensor | None:
        """float32 [Q, C] of frame `index`; None where none was written."""
        payload = self.records.read(_appearance_key(index))
        if payload is None:
            return None
        values = torch.from_numpy(np.frombuffer(payload, np.float16).reshape(self.shape[0], -1).copy())
        return F.normalize(values.float(), dim=1)  # zeros stay zeros

    def chunks(self, num_frames: int, device: torch.device, frames_per_chunk: int = 4) -> Iterator[Tensor]:
        """The logits of the first frames in order, float32 [Q, t, h, w] with t <= frames_per_chunk."""
        for start in range(0, num_frames, frames_per_chunk):
            frames = [self.read(index) for index in range(start, min(start + frames_per_chunk, num_frames))]
            yield torch.stack(frames, dim=1).to(device).float()

    def close(self) -> None:
        """Removes the temporary folder."""
        if self._temporary is not None:
            self._temporary.cleanup()


def _key(index: int) -> str:
    return f"logits_{index:08d}"


def _appearance_key(index: int) -> str:
    return f"appearance_{index:08d}"
