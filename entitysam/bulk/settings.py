"""What decides the result of a job, and what one video of it is. Plain data: it travels to other processes and machines."""

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from entitysam.io.record_store import file_fingerprint
from entitysam.shipped import RANDOM, check_model_name, default_weights, is_weight_file

DONE, FAILED = "done", "failed"


@dataclass(frozen=True)
class Settings:
    """Everything that a worker needs besides the video.

    Attributes:
        model, weights, device, overrides: see `engine.build.open_model`.
        inference: keyword arguments of `VideoSegmenter`.
        window: frames of a window (see `inference.windows`); None = a video in one run.
        stride, max_frames: see `io.readers.source.open_frames`.
        threads: CPU threads of a worker. Sums depend on it in their last digit, hence it is a setting, and not a share of
            the machine.
        masks: also write a result folder per video, without the files that show its frames.
        overlays: also write the usual result folder per video.
    """

    model: str = "tiny"
    weights: str | None = None
    device: str = "auto"
    overrides: dict[str, Any] = field(default_factory=dict)
    inference: dict[str, Any] = field(default_factory=dict)
    window: int | None = None
    stride: int = 1
    max_frames: int | None = None
    threads: int = 1
    masks: bool = False
    overlays: bool = False

    def fingerprint(self) -> dict[str, Any]:
        """What must be equal for a job to be continued; found without opening the network."""
        values = asdict(self)
        del values["device"]
        return {**values, "weights": self._weights()}

    def _weights(self) -> Any:
        file: str | Path | None = self.weights
        if file is None:
            file = self.model if is_weight_file(self.model) else default_weights(check_model_name(self.model))
        return RANDOM if file in (None, RANDOM) else file_fingerprint(str(file))


@dataclass(frozen=True)
class Clip:
    """One video of a job, a row of its manifest.

    Attributes:
        id: its name, unique in the job.
        path: absolute path of a video or of a folder of images, or an address that fsspec opens.
        start, end: seconds from the first frame, None = the whole video.
    """

    id: str
    path: str
    start: float | None = None
    end: float | None = None


@dataclass
class Outcome:
    """What became of a video, a row of `videos.parquet`.

    Attributes:
        id, path, start, end: see `Clip`.
        status: "done" or "failed".
        file: name of its Parquet file below the output; "" for failed ones.
        frames, entities, width, height, fps: of the result.
        seconds: that its worker spent on it.
        error: one line; "" for finished ones.
        warnings: of the reader, one per line.
        worker: host name and process that did it.
    """

    id: str
    path: str
    start: float | None = None
    end: float | None = None
    status: str = FAILED
    file: str = ""
    frames: int = 0
    entities: int = 0
    width: int = 0
    height: int = 0
    fps: float | None = None
    seconds: float = 0.0
    error: str = ""
    warnings: str = ""
    worker: str = ""

    @classmethod
    def of(cls, clip: Clip, **values: Any) -> "Outcome":
        return cls(clip.id, clip.path, clip.start, clip.end, **values)

    @classmethod
    def names(cls) -> list[str]:
        return [field.name for field in fields(cls)]
