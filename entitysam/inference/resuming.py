"""State of a run over a video, saved so that an interrupted run continues with the next frame to the same result."""

import gc
import io
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from entitysam.inference.logit_store import LogitStore
from entitysam.inference.online import OnlineEntities
from entitysam.io.record_store import RecordStore

STATE = "state"  # key of the record
STATE_PERIOD = 50  # frames between two saved states; a killed run repeats at most so many


class OfflineRun:
    """Everything that the offline protocol keeps from frame to frame.

    Args:
        initial_state: state of the network before the first frame.
        device: of the state.
        records: store of a resumable run; None keeps the logits in a temporary folder.
        out_size: (H, W) of the maps; None = that of the first frame.

    Attributes:
        state: state of the network after `num_frames` frames.
        num_frames: frames done.
        logits: filled mask logits of these frames.
    """

    def __init__(
        self,
        initial_state: Any,
        device: torch.device,
        records: RecordStore | None = None,
        out_size: tuple[int, int] | None = None,
    ) -> None:
        self.state, self.num_frames, self.out_size = initial_state, 0, out_size
        self.logits = LogitStore(records)
        self._resumable = records is not None
        self._scores: list[Tensor] = []  # [Q] of every pass, warm-up passes included
        self._expected: int | None = None
        saved = load_state(records, device)
        if saved is not None:
            self.state, self.num_frames = type(initial_state)(**saved["state"]), saved["num_frames"]
            self.out_size = self.out_size or tuple(saved["out_size"])
            self.logits.shape = tuple(saved["shape"])
            self._scores = list(saved["scores"].cpu().unbind())

    def remaining(self, frames: Iterable[np.ndarray], on_frame: Callable[[], None]) -> Iterator[np.ndarray]:
        """The frames that are not done; calls `on_frame` for those that are."""
        self._expected = _length(frames)
        for _ in range(self.num_frames):
            on_frame()
        yield from islice(frames, self.num_frames, None)

    def add(self, state: Any, scores: list[Tensor], mask_logits: Tensor, size: tuple[int, int]) -> None:
        """Adds a frame.

        Args:
            state: of the network after it.
            scores: [Q] of each of its passes.
            mask_logits: [Q, h, w] of the last pass, holes filled.
            size: (H, W) of the frame.

        Raises:
            OutputError: the logits of the video do not fit on the disk; checked once, before the second frame.
        """
        self.out_size = self.out_size or size
        self.logits.write(self.num_frames, mask_logits)
        if self.num_frames == 0 and self._expected is not None:
            self.logits.check_space(self._expected - 1)
        self._scores += [score.detach().float().cpu() for score in scores]
        self.state, self.num_frames = state, self.num_frames + 1
        if self.num_frames % STATE_PERIOD == 0:
            self.save()

    def scores(self) -> Tensor:
        """float32 [passes, Q], warm-up passes first."""
        return torch.stack(self._scores)

    def save(self) -> None:
        """Saves the state where the run is resumable."""
        if self._resumable and self.num_frames:  # at least one frame: an interrupted run of none starts again
            saved = {"num_frames": self.num_frames, "out_size": self.out_size, "shape": self.logits.shape}
            save_state(self.logits.records, {**saved, "state": vars(self.state), "scores": self.scores()})

    @contextmanager
    def saved(self) -> Iterator[None]:
        """Saves the state when the block ends, also after an error or Ctrl-C."""
        try:
            yield
        except BaseException:
            self.save()
            self.logits.close()
            raise
        self.save()


class OnlineRun:
    """Everything that online segmentation keeps from frame to frame; arguments as for `OfflineRun`.

    Attributes:
        state: state of the network after `num_frames` frames.
        num_frames: frames whose results the consumer has taken.
        entities: running confidences of the entities.
    """

    def __init__(
        self, initial_state: Any, device: torch.device, records: RecordStore | None, entities: OnlineEntities
    ) -> None:
        self.state, self.num_frames, self.entities = initial_state, 0, entities
        self._records = records
        self._finished: dict[str, Any] | None = load_state(records, device)
        if self._finished is not None:
            self.state = type(initial_state)(**self._finished["state"])
            self.num_frames = self._finished["num_frames"]
            entities.load_state(self._finished["entities"])

    def remaining(self, frames: Iterable[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
        """Index and pixels of the frames that are not done."""
        return enumerate(islice(frames, self.num_frames, None), start=self.num_frames)

    def finish_frame(self, state: Any) -> None:
        """The consumer has taken the result of the next frame; `state` is that of the network after it."""
        self.state, self.num_frames = state, self.num_frames + 1
        self._finished = {"state": vars(state), "num_frames": self.num_frames, "entities": self.entities.state()}
        if self.num_frames % STATE_PERIOD == 0:
            self._save()

    def _save(self) -> None:
        if self._records is not None and self._finished is not None:
            save_state(self._records, self._finished)

    @contextmanager
    def saved(self) -> Iterator[None]:
        """Saves the state of the last finished frame when the block ends, also after an error or Ctrl-C."""
        try:
            yield
        finally:
            self._save()


def save_state(records: RecordStore, state: dict[str, Any]) -> None:
    """Writes plain data and tensors as the record `STATE`, replacing the former one in one step."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    records.write(STATE, buffer.getvalue())
    gc.collect(1)  # torch.save leaves reference cycles that hold the state; they are young now, so this costs little


def load_state(records: RecordStore | None, device: torch.device) -> dict[str, Any] | None:
    """The saved state with its tensors on `device`; None where there is none."""
    payload = None if records is None else records.read(STATE)
    return None if payload is None else torch.load(io.BytesIO(payload), map_location=device, weights_only=True)


def _length(frames: Iterable[np.ndarray]) -> int | None:
    """Number of frames where it is known."""
    known = getattr(frames, "num_frames", None)
    return len(frames) if known is None and isinstance(frames, Sized) else known
