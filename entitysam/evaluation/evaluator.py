"""What all evaluators have in common: stream videos in, merge processes, numbers out.

An evaluator is two pure functions. `measure` turns one video into a small record; `summarise` turns records into
numbers. Everything between (streaming, merging, per-video tables) is here, once. Records are kept per video and
summed in the order of the video ids, so the digits do not depend on the order or the split of the videos.
"""

import inspect
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from entitysam.registry import EVALUATORS, build


class EvaluationError(ValueError):
    """Input that cannot be scored; the message names the video, and the frame and segment where there is one."""


class HasVideoId(Protocol):
    """Every input type of `evaluation.videos` carries the name (or the number) of its video or image."""

    @property
    def video_id(self) -> Any: ...


VideoT = TypeVar("VideoT", bound=HasVideoId)
RecordT = TypeVar("RecordT")


class Evaluator(ABC, Generic[VideoT, RecordT]):
    """Streams videos (or images) and computes metrics.

    Attributes:
        scale: what to multiply the numbers of `compute` with to get the percent that the papers print.
        records: video id -> what `measure` kept of it (a few numbers, never pixels). Plain data, may be pickled.
        warnings: what was wrong with the input but, as in the reference evaluators, did not stop the evaluation.
    """

    scale: float = 100.0

    def __init__(self) -> None:
        self.records: dict[Any, RecordT] = {}
        self.warnings: Counter[str] = Counter()

    @abstractmethod
    def measure(self, video: VideoT, warnings: Counter[str]) -> RecordT | None:
        """The record of one video, or None to leave it out; oddities that do not matter are counted in `warnings`."""

    @abstractmethod
    def summarise(self, records: Sequence[RecordT]) -> dict[str, float]:
        """The metrics of these videos, pooled."""

    def update(self, video: VideoT) -> None:
        """Adds one video.

        Raises:
            EvaluationError: the video cannot be scored, or was added before. The evaluator is left as it was.
        """
        if video.video_id in self.records:
            raise EvaluationError(f"video {video.video_id}: added twice")
        warnings: Counter[str] = Counter()
        record = self.measure(video, warnings)
        if record is not None:
            self.records[video.video_id] = record
        self.warnings.update(+warnings)  # without the zeros

    def merge(self, other: "Evaluator[VideoT, RecordT]") -> None:
        """Takes over the videos of another process; afterwards `compute` gives the digits of a single process.

        Raises:
            EvaluationError: a video was evaluated by both.
        """
        twice = self.records.keys() & other.records.keys()
        if twice:
            raise EvaluationError(f"video {min(twice)}: evaluated by two processes")
        self.records.update(other.records)
        self.warnings.update(other.warnings)

    def compute(self) -> dict[str, float]:
        """The metrics over all videos so far; NaN where a metric is undefined."""
        return self.summarise([self.records[video_id] for video_id in sorted(self.records)])

    def percent(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """Numbers of `compute` or `per_video` as the papers print them."""
        return {name: value * self.scale for name, value in numbers.items()}

    def per_video(self) -> dict[Any, dict[str, float]]:
        """The same metrics for each video by itself."""
        return {video_id: self.summarise([self.records[video_id]]) for video_id in sorted(self.records)}


def build_evaluators(
    nodes: Sequence[Mapping[str, Any]], path: str = "evaluation.evaluators", **children: Any
) -> dict[str, Evaluator[Any, Any]]:
    """Evaluators from config nodes such as `{name: veq}`, by registered name.

    Args:
        nodes: one mapping per evaluator.
        path: where they stand in the config, for messages.
        children: what the data set offers, e.g. `categories`; each evaluator gets those that its constructor takes.

    Raises:
        ConfigError: unknown name or key.
    """
    evaluators = {}
    for index, node in enumerate(nodes):
        name = str(node.get("name"))
        accepted = inspect.signature(EVALUATORS.get(name)).parameters if name in EVALUATORS else {}
        offered = {key: child for key, child in children.items() if key in accepted and key not in node}
        evaluators[name] = build(EVALUATORS, node, f"{path}[{index}]", **offered)
    return evaluators
