"""The interface of all evaluators: add videos, merge processes, compute metrics.

An evaluator consists of two pure functions: `measure` reduces one video to a small record, `summarise` computes metrics
from records. Streaming, merging and per-video tables are implemented here. Records are kept per video and summed in the
order of the video ids, so that results are identical for any order of the videos and any number of processes.
"""

import inspect
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from entitysam.registry import EVALUATORS, build


class EvaluationError(ValueError):
    """Input that cannot be scored; the message names the video, and the frame and segment where there is one."""


class HasVideoId(Protocol):
    """An input type of an evaluator; every one has the id of its video or image."""

    @property
    def video_id(self) -> Any: ...


VideoT = TypeVar("VideoT", bound=HasVideoId)
RecordT = TypeVar("RecordT")


class Evaluator(ABC, Generic[VideoT, RecordT]):
    """Streams videos (or images) and computes metrics.

    Attributes:
        scale: factor from the values of `compute` to the percentages of the papers.
        records: video id -> record of `measure` (counts, no pixels). Plain data, can be pickled.
        warnings: number of each defect of the input that the reference evaluators accept.
    """

    scale: float = 100.0

    def __init__(self) -> None:
        self.records: dict[Any, RecordT] = {}
        self.warnings: Counter[str] = Counter()

    @abstractmethod
    def measure(self, video: VideoT, warnings: Counter[str]) -> RecordT | None:
        """The record of one video, or None to skip it; defects that do not stop the evaluation are counted in `warnings`."""

    @abstractmethod
    def summarise(self, records: Sequence[RecordT]) -> dict[str, float]:
        """The metrics of these videos, pooled."""

    def update(self, video: VideoT) -> None:
        """Adds one video.

        Raises:
            EvaluationError: the video cannot be scored, or was added before; the evaluator is unchanged.
        """
        if video.video_id in self.records:
            raise EvaluationError(f"video {video.video_id}: added twice")
        warnings: Counter[str] = Counter()
        record = self.measure(video, warnings)
        if record is not None:
            self.records[video.video_id] = record
        self.warnings.update(+warnings)  # drops zeros

    def merge(self, other: "Evaluator[VideoT, RecordT]") -> None:
        """Adds the videos of another process; `compute` then gives the same values as on a single process.

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

    def notes(self) -> list[str]:
        """Sentences for the report on how to read the metrics."""
        return []

    def percent(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """Values of `compute` or `per_video` in percent."""
        return {name: value * self.scale for name, value in numbers.items()}

    def bootstrap(self, resamples: int, seed: int = 0) -> dict[str, np.ndarray]:
        """The first metric of `compute` over videos drawn with replacement, in percent: {name: float [resamples]}.

        Equal video ids, seed and number give equal draws, so that the samples of two methods are pairs.
        """
        order, draws = sorted(self.records), np.random.default_rng(seed)
        if not order:
            return {}
        name, values = next(iter(self.compute())), []
        for _ in range(resamples):
            drawn = draws.integers(0, len(order), len(order))
            values.append(self.summarise([self.records[order[index]] for index in drawn])[name] * self.scale)
        return {name: np.array(values)}

    def per_video(self) -> dict[Any, dict[str, float]]:
        """The same metrics for each video by itself."""
        return {video_id: self.summarise([self.records[video_id]]) for video_id in sorted(self.records)}


def build_evaluators(
    nodes: Sequence[Mapping[str, Any]], path: str = "evaluation.evaluators", **children: Any
) -> dict[str, Evaluator[Any, Any]]:
    """Evaluators from config nodes such as `{name: veq}`, by registered name.

    Args:
        nodes: one mapping per evaluator.
        path: of the nodes in the config, for error messages.
        children: properties of the data set, e.g. `categories`; passed to the constructors that accept them.

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
