"""An evaluation: a method (or saved predictions) over the videos of a data set, evaluators, one result.

Every process takes its share of the videos. A video is segmented, written, read back and measured before the next one
is begun, so a model's numbers are those of its saved predictions; an error costs the video it happened in.
"""

import logging
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, get_type_hints

import numpy as np

from entitysam import distributed
from entitysam.classification.classifier import ClassifierError
from entitysam.data.evaluation.base import EvaluationSet
from entitysam.engine.evaluate.formats.base import (
    Entry,
    PredictionError,
    PredictionFormat,
    Segmented,
    VideoFrames,
)
from entitysam.engine.evaluate.progress import Records, share, video_bar
from entitysam.engine.evaluate.report.result import EvaluationResult, Failure, VideoResult
from entitysam.engine.labelling.evaluation import VideoLabeller
from entitysam.evaluation import Evaluator
from entitysam.registry import ConfigError
from entitysam.structures import Video

logger = logging.getLogger(__name__)

Evaluators = dict[str, Evaluator[Any, Any]]


class VideoMethod(Protocol):
    """Anything that finds the entities of a video: `inference.segmenter.VideoSegmenter`, the baselines."""

    def segment(self, frames: Iterable[np.ndarray], out_size: tuple[int, int]) -> Segmented:
        """Frames uint8 [H, W, 3] RGB from the first on -> maps of `out_size` (H, W)."""


@dataclass
class Share:
    """What one process found: plain data and evaluators, which travel to the others."""

    evaluators: Evaluators
    entries: dict[int, Entry] = field(default_factory=dict)  # by position of the video
    videos: dict[str, VideoResult] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    warnings: dict[str, int] = field(default_factory=dict)


def check_input_types(evaluators: Evaluators, prediction_format: PredictionFormat) -> None:
    """Refuses evaluators that need other annotations than the data set has.

    Raises:
        ConfigError: names the evaluator.
    """
    for name, evaluator in evaluators.items():
        if input_type(evaluator) not in prediction_format.input_types:
            raise ConfigError(
                f"evaluation.evaluators: '{name}' cannot be computed on {prediction_format.dataset.title}, "
                f"whose annotations are {prediction_format.dataset.annotation_format}"
            )


def input_type(evaluator: Evaluator[Any, Any]) -> type:
    """The type of `evaluation.videos` that an evaluator takes."""
    return get_type_hints(evaluator.measure)["video"]


def predict_and_measure(
    dataset: EvaluationSet,
    method: VideoMethod,
    prediction_format: PredictionFormat,
    evaluators: Evaluators,
    records: Records,
    limit: int | None = None,
    quiet: bool = False,
    labeller: VideoLabeller | None = None,
) -> EvaluationResult:
    """Runs a method over the data set and evaluates it; on every process.

    Args:
        dataset: the videos.
        method: finds entities.
        prediction_format: writes the predictions.
        evaluators: without videos yet.
        records: of the finished videos, which are not segmented again.
        limit: only so many videos, from the first.
        quiet: no progress bar.
        labeller: gives the entities categories, for class-specific tasks.
    """

    def entry_of(video: Video) -> tuple[Entry, float]:
        record = records.read(video.video_id)
        if record is None:
            started = time.perf_counter()
            segmented = prediction_format.predict(method, video)
            entry = (
                prediction_format.write(video, segmented)
                if labeller is None
                else _write_named(video, segmented, prediction_format, labeller)
            )
            record = {"entry": entry, "seconds": time.perf_counter() - started}
            records.write(video.video_id, record)
        return record["entry"], record["seconds"]

    return _run(dataset, prediction_format, evaluators, entry_of, limit, quiet, write_index=True)


def _write_named(
    video: Video, segmented: Segmented, prediction_format: PredictionFormat, labeller: VideoLabeller
) -> Entry:
    named = labeller.name(video, segmented)
    return prediction_format.write(video, named, named.categories)


def measure_saved(
    dataset: EvaluationSet,
    prediction_format: PredictionFormat,
    evaluators: Evaluators,
    limit: int | None = None,
    quiet: bool = False,
) -> EvaluationResult:
    """Evaluates the predictions in the folder of `prediction_format`; arguments as for `predict_and_measure`.

    Raises:
        PredictionError: the index file is missing or broken.
    """
    index = prediction_format.read_index()
    unknown = set(index) - {str(video.video_id) for video in dataset.videos}
    if distributed.rank() == 0:
        prediction_format.warnings["predicted videos that the data set does not have, left out"] += len(unknown)

    def entry_of(video: Video) -> tuple[Entry | None, float]:
        entries = index.get(str(video.video_id), [])
        if len(entries) > 1:
            raise PredictionError(f"video {video.video_id}: predicted {len(entries)} times")
        return (entries[0] if entries else None), float("nan")

    return _run(dataset, prediction_format, evaluators, entry_of, limit, quiet, write_index=False)


def read_frames(video: Video) -> Iterator[np.ndarray]:
    """The frames of a video, see `VideoFrames`.

    Raises:
        DataError: broken or missing file.
    """
    return iter(VideoFrames(video))


def _run(
    dataset: EvaluationSet,
    prediction_format: PredictionFormat,
    evaluators: Evaluators,
    entry_of: Callable[[Video], tuple[Entry | None, float]],
    limit: int | None,
    quiet: bool,
    write_index: bool,
) -> EvaluationResult:
    started = time.perf_counter()
    videos = dataset.videos[:limit]
    mine = share([len(video) for video in videos], distributed.world_size())[distributed.rank()]
    found = Share(evaluators)
    several = f" (1 of {distributed.world_size()} processes)" if distributed.world_size() > 1 else ""
    with video_bar(f"videos{several}", len(mine), quiet or distributed.rank() > 0) as bar:
        for position in mine:
            _one_video(videos[position], position, prediction_format, found, entry_of)
            bar.advance(bar.task_ids[0])
    found.warnings = dict(prediction_format.warnings)
    shares = distributed.gather(found)
    if write_index and distributed.rank() == 0:
        entries = {position: entry for part in shares for position, entry in part.entries.items()}
        prediction_format.write_index([entries[position] for position in sorted(entries)])
    return _merge(dataset, shares, [str(video.video_id) for video in videos], time.perf_counter() - started)


def _one_video(
    video: Video,
    position: int,
    prediction_format: PredictionFormat,
    found: Share,
    entry_of: Callable[[Video], tuple[Entry | None, float]],
) -> None:
    """Segments and measures one video; errors become failures."""
    name = str(video.video_id)
    try:
        entry, seconds = entry_of(video)
    except ClassifierError:  # no other video would fare better
        raise
    except Exception as error:  # whatever it is, the other videos are worth going on for
        found.failures.append(_failure(name, "prediction", error))
        return
    found.videos[name] = VideoResult(frames=len(video), seconds=seconds)
    if entry is not None:
        found.entries[position] = entry
    pairs: dict[type, Any] = {}
    for key, evaluator in found.evaluators.items():
        try:
            kind = input_type(evaluator)
            if kind not in pairs:
                pairs[kind] = prediction_format.pair(video, entry, kind)
            evaluator.update(pairs[kind])
        except Exception as error:
            found.failures.append(_failure(name, key, error))


def _failure(video: str, during: str, error: Exception) -> Failure:
    logger.debug("%s", traceback.format_exc())
    reason = " ".join(str(error).split()) or type(error).__name__
    known = isinstance(error, ValueError | OSError)
    text = reason if known else f"{type(error).__name__}: {reason}"
    logger.error("video %s failed (%s): %s", video, during, text)
    return Failure(video, during, text)


def _merge(dataset: EvaluationSet, shares: Sequence[Share], order: Sequence[str], seconds: float) -> EvaluationResult:
    """The result of all processes; the digits do not depend on how the videos were shared."""
    first, rest = shares[0], shares[1:]
    warnings: dict[str, int] = {}
    for part in shares:
        for text, count in part.warnings.items():
            warnings[text] = warnings.get(text, 0) + count
    for part in rest:
        for name, evaluator in first.evaluators.items():
            evaluator.merge(part.evaluators[name])
    videos = {name: result for part in shares for name, result in part.videos.items()}
    failures = [failure for part in shares for failure in part.failures]
    result = EvaluationResult(
        title=dataset.title,
        videos={name: videos[name] for name in order if name in videos},
        failures=sorted(failures, key=lambda failure: order.index(failure.video)),
        seconds=seconds,
    )
    for evaluator in first.evaluators.values():
        result.metrics |= evaluator.percent(evaluator.compute())
        for video_id, numbers in evaluator.per_video().items():
            if str(video_id) in result.videos:
                result.videos[str(video_id)].metrics |= evaluator.percent(numbers)
        for text, count in evaluator.warnings.items():
            warnings[text] = warnings.get(text, 0) + count
    result.warnings = {text: count for text, count in sorted(warnings.items()) if count}
    return result
