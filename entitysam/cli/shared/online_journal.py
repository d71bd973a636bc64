"""Scores and events of an online run, frame by frame, for its result files and for `--resume`."""

from dataclasses import asdict, dataclass
from typing import Any

from entitysam.inference.segmenter import FrameResult
from entitysam.io.record_store import RecordStore
from entitysam.registry import ConfigError


@dataclass
class JournalFrame:
    """The running confidence of the ids on one frame, and its events."""

    scores: dict[int, float]
    events: list[dict[str, Any]]


class OnlineJournal:
    """The frames of an online run, in memory and as records that survive an interruption.

    Args:
        records: store of the run.
        keep: number of frames that an interrupted run has finished; None = all that are recorded.

    Raises:
        ConfigError: fewer are recorded.
    """

    def __init__(self, records: RecordStore, keep: int | None) -> None:
        self._records = records
        self.frames: list[JournalFrame] = []
        while keep is None or len(self.frames) < keep:
            record = records.read_json(_key(len(self.frames)))
            if record is None:
                break
            self.frames.append(JournalFrame({int(i): score for i, score in record["scores"].items()}, record["events"]))
        if keep is not None and len(self.frames) < keep:
            raise ConfigError(
                f"{records.folder}: {len(self.frames)} of {keep} finished frames are recorded; start without --resume"
            )

    @property
    def scores(self) -> dict[int, float]:
        """Last confidence of every id that was ever on a frame."""
        return {key: value for frame in self.frames for key, value in frame.scores.items()}

    @property
    def events(self) -> list[dict[str, Any]]:
        """All events in order."""
        return [event for frame in self.frames for event in frame.events]

    def add(self, result: FrameResult) -> None:
        """Appends a frame."""
        events = [{"frame": result.index, "kind": event.kind, "id": event.id} for event in result.events]
        frame = JournalFrame(dict(result.scores), events)
        self._records.write_json(_key(len(self.frames)), asdict(frame))
        self.frames.append(frame)


def _key(index: int) -> str:
    return f"frame_{index:08d}"
