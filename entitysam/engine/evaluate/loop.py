"""The evaluation loop: predicts the videos of a data set (or reads saved predictions) and computes the metrics.

Every process evaluates its share of the videos. A video is predicted, written, read back and measured before the next
one starts, so the metrics of a model are those of its saved predictions. A failing video is skipped and reported.
"""

import logging
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, get_type_hints

import numpy as np
import torch

from entitysam import distributed
from entitysam.classification.classifier import ClassifierError
from entitysam.data.evaluation.base import EvaluationSet
from entitysam.engine.evaluate.memory import peak_memory, reset_peak
from entitysam.engine.evaluate.progress import share, video_bar
from entitysam.engine.evaluate.report.result import EvaluationResult, Failure, VideoResult
from entitysam.engine.formats.base import (
    Entry,
    PredictionError,
    PredictionFormat,
    Segmented,
    VideoFrames,
)
from entitysam.engine.labelling.evaluation import VideoLabeller
from entitysam.evaluation import Evaluator
from entitysam.io.record_store import RecordStore
from entitysam.registry import ConfigError
from entitysam.structures import Video

logger = logging.getLogger(__name__)

Evaluators = dict[str, Evaluator[Any, Any]]
# video -> its index entry (None: not predicted), seconds, peak memory in MiB
Predict = Callable[[Video], tuple[Entry | None, float, float]]


class DeviceLostError(RuntimeError):
    """The accelerator answers every call with an error, so no further video can be predicted in this process."""


class VideoMethod(Protocol):
    """Segments the entities of a video: `inference.segmenter.VideoSegmenter`, and what `engine.methods` builds."""

    def segment(self, frames: Iterable[np.ndarray], out_size: tuple[int, int]) -> Segmented:
        """Frames uint8 [H, W, 3] RGB in order -> id maps of `out_size` (H, W)."""


@dataclass
class Share:
    """Results of one process: plain data and evaluators, which are sent to the other processes."""

    evaluators: Evaluators
    entries: dict[int, Entry] = field(default_factory=dict)  # by index of the video
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
    """The type of `evaluation.videos` that an evaluator takes: the annotation of `video` in its `measure`.

    Raises:
        ConfigError: the annotation is missing.
    """
    hints = get_type_hints(evaluator.measure)
    if "video" not in hints:
        raise ConfigError(
            f"evaluation.evaluators: {type(evaluator).__name__}.measure must say what it takes, e.g. video: PanopticVideo"
        )
    return hints["video"]


def predict_and_measure(
    dataset: EvaluationSet,
    method: VideoMethod,
    prediction_format: PredictionFormat,
    evaluators: Evaluators,
    records: RecordStore,
    limit: int | None = None,
    quiet: bool = False,
    labeller: VideoLabeller | None = None,
    device: torch.device | str = "cpu",
    resamples: int = 0,
) -> EvaluationResult:
    """Runs a method over the data set and evaluates it; called on every process.

    Args:
        dataset: the videos.
        method: segments the entities.
        prediction_format: writes the predictions.
        evaluators: without videos yet.
        records: of the finished videos, which are not predicted again.
        limit: evaluate only the first `limit` videos.
        quiet: no progress bar.
        labeller: assigns categories to the entities, for class-specific tasks.
        device: whose memory is measured.
        resamples: of the videos, for the confidence intervals of the result; 0 = none.

    Raises:
        UnsafePathError: a prediction would be written outside of the folder; raised before the first video.
        ClassifierError, DeviceLostError: no further video can be predicted. Finished videos have their records.
        WorkerError: another process raised one of these.
    """
    prediction_format.check_outputs(dataset.videos[:limit])

    device = torch.device(device)

    def predict(video: Video) -> tuple[Entry, float, float]:
        record = records.read_json(str(video.video_id))
        if record is None:
            reset_peak(device)
            started = time.perf_counter()
            segmented = prediction_format.predict(method, video)
            entry = (
                prediction_format.write(video, segmented)
                if labeller is None
                else _write_named(video, segmented, prediction_format, labeller)
            )
            seconds = time.perf_counter() - started
            record = {"entry": entry, "seconds": seconds, "memory": peak_memory(device)}
            records.write_json(str(video.video_id), record)
        return record["entry"], record["seconds"], record.get("memory", float("nan"))

    return _run(dataset, prediction_format, evaluators, predict, limit, quiet, True, resamples)


def _write_named(
    video: Video, segmented: Segmented, prediction_format: PredictionFormat, labeller: VideoLabeller
) -> Entry:
    named = labeller.label(video, segmented)
    return prediction_format.write(video, named, named.categories)


def measure_saved(
    dataset: EvaluationSet,
    prediction_format: PredictionFormat,
    evaluators: Evaluators,
    limit: int | None = None,
    quiet: bool = False,
    resamples: int = 0,
) -> EvaluationResult:
    """Evaluates the predictions in the folder of `prediction_format`; arguments as for `predict_and_measure`.

    Raises:
        PredictionError: the index file is missing or broken.
        WorkerError: another process failed.
    """
    index = prediction_format.read_index()
    unknown = set(index) - {str(video.video_id) for video in dataset.videos}
    if distributed.rank() == 0:
        prediction_format.warnings["predicted videos that the data set does not have, left out"] += len(unknown)

    def look_up(video: Video) -> tuple[Entry | None, float, float]:
        entries = index.get(str(video.video_id), [])
        if len(entries) > 1:
            raise PredictionError(f"video {video.video_id}: predicted {len(entries)} times")
        return (entries[0] if entries else None), float("nan"), float("nan")

    return _run(dataset, prediction_format, evaluators, look_up, limit, quiet, False, resamples)


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
    predict: Predict,
    limit: int | None,
    quiet: bool,
    write_index: bool,
    resamples: int,
) -> EvaluationResult:
    started = time.perf_counter()
    videos = dataset.videos[:limit]
    own = share([len(video) for video in videos], distributed.world_size())[distributed.rank()]
    found = Share(evaluators)
    work = distributed.SharedWork()
    several = f" (1 of {distributed.world_size()} processes)" if distributed.world_size() > 1 else ""
    try:
        with video_bar(f"videos{several}", len(own), quiet or distributed.rank() > 0) as bar:
            for index in own:
                work.check()
                _one_video(videos[index], index, prediction_format, found, predict)
                bar.advance(bar.task_ids[0])
    except Exception as error:
        work.fail(str(error) or type(error).__name__)
        raise
    work.wait()  # shares differ in length; a collective would time out
    found.warnings = dict(prediction_format.warnings)
    shares = distributed.gather(found)
    if write_index and distributed.rank() == 0:
        entries = {index: entry for part in shares for index, entry in part.entries.items()}
        prediction_format.write_index([entries[index] for index in sorted(entries)])
    order = [str(video.video_id) for video in videos]
    return _merge(dataset, shares, order, time.perf_counter() - started, resamples)


def _one_video(
    video: Video,
    index: int,
    prediction_format: PredictionFormat,
    found: Share,
    predict: Predict,
) -> None:
    """Predicts and measures one video; errors become failures, except those that no other video would escape."""
    name = str(video.video_id)
    try:
        entry, seconds, memory = predict(video)
    except ClassifierError:
        raise
    except Exception as error:
        if device_is_lost(error):
            reason = f"video {name}: the device failed and cannot be used any more ({_one_line(error)})"
            raise DeviceLostError(f"{reason}; --resume continues with this video") from error
        found.failures.append(_failure(name, "prediction", error))
        return
    found.videos[name] = VideoResult(frames=len(video), seconds=seconds, memory=memory)
    if entry is not None:
        found.entries[index] = entry
    pairs: dict[type, Any] = {}  # frames are decoded once for all evaluators of a type
    for key, evaluator in found.evaluators.items():
        try:
            kind = input_type(evaluator)
            if kind not in pairs:
                pairs[kind] = prediction_format.pair(video, entry, kind)
            evaluator.update(pairs[kind])
        except Exception as error:
            found.failures.append(_failure(name, key, error))


def device_is_lost(error: Exception) -> bool:
    """Whether the error is one after which every further CUDA call of this process fails (illegal access, assertion)."""
    if isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error):
        return False
    if isinstance(error, RuntimeError) and "CUDA error" in str(error):
        return True
    try:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()  # raises in a lost context, whatever `error` was about
    except RuntimeError:
        return True
    return False


def _failure(video: str, during: str, error: Exception) -> Failure:
    logger.debug("%s", traceback.format_exc())
    text = _one_line(error)
    logger.error("video %s failed (%s): %s", video, during, text)
    return Failure(video, during, text)


def _one_line(error: Exception) -> str:
    """The message; with the type where the error is not one of bad input."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return reason if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {reason}"


def _merge(
    dataset: EvaluationSet, shares: Sequence[Share], order: Sequence[str], seconds: float, resamples: int
) -> EvaluationResult:
    """The result of all processes. The numbers do not depend on the division of the videos among them."""
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
        result.notes += evaluator.notes()
        if resamples:
            result.samples |= evaluator.bootstrap(resamples)
        for video_id, numbers in evaluator.per_video().items():
            if str(video_id) in result.videos:
                result.videos[str(video_id)].metrics |= evaluator.percent(numbers)
        for text, count in evaluator.warnings.items():
            warnings[text] = warnings.get(text, 0) + count
    result.warnings = {text: count for text, count in sorted(warnings.items()) if count}
    return result
