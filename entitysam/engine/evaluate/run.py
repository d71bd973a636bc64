"""An evaluation run: builds data set, evaluators and method from config and options, and writes the report."""

import logging
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from entitysam import distributed
from entitysam.classification.classifier import ClassifierError
from entitysam.config import from_dict, to_dict
from entitysam.data.evaluation.base import EvaluationSet
from entitysam.engine.build import pick_device
from entitysam.engine.evaluate.loop import (
    Evaluators,
    VideoMethod,
    check_input_types,
    measure_saved,
    predict_and_measure,
)
from entitysam.engine.evaluate.report.plots import write_plots
from entitysam.engine.evaluate.report.result import EvaluationResult, write_report
from entitysam.engine.formats import instances, panoptic, semantic, tracks
from entitysam.engine.formats.base import ENTITY, PredictionFormat
from entitysam.engine.labelling.evaluation import SHEETS, VideoLabeller, build_video_labeller, sum_statistics
from entitysam.engine.methods.appearance import build_segmenter
from entitysam.engine.methods.build import build_method, fingerprint, method_node
from entitysam.engine.methods.context import MethodContext
from entitysam.engine.methods.masa_tracking import VideoTracking
from entitysam.evaluation import build_evaluators
from entitysam.io.files import make_folder
from entitysam.io.record_store import RecordStore, file_fingerprint
from entitysam.precision import set_arithmetic
from entitysam.registry import DATASETS, ConfigError, build

logger = logging.getLogger(__name__)

ENTITY_TASK = "entity"
RECORDS = "records"  # folder of the finished videos, for --resume
TRACKING_TASK = "mot"
# Class-agnostic entities; video panoptic, semantic, instance segmentation; tracking of detections with categories.
TASKS = (ENTITY_TASK, "vps", "vss", "vis", TRACKING_TASK)
PREDICTIONS = (panoptic.MAPS, panoptic.INDEX, semantic.MAPS, instances.INDEX, instances.ARCHIVE, tracks.INDEX)
PREDICTION_FORMATS: dict[str, type[PredictionFormat]] = {
    "panoptic": panoptic.PanopticFormat,
    "semantic": semantic.SemanticFormat,
    "instances": instances.InstanceFormat,
    "tracks": tracks.TracksFormat,
}


@dataclass(frozen=True)
class RunOptions:
    """Options of the command line.

    Attributes:
        weights: weight file, "random", or "" where none is needed.
        predictions: folder of saved predictions to evaluate instead of a model.
        method: NAME[:key=value,...], see `engine.methods.build`; "" = EntitySAM, or MASA where detections are tracked.
        resume: skip the videos that an interrupted run finished.
        limit_videos: evaluate only the first `limit_videos` videos.
        save_predictions: keep the predictions after the report.
        worst: number of videos on the contact sheet.
        device: see `engine.build.pick_device`.
        quiet: no progress bar.
        resamples: of the videos, for confidence intervals; 0 = none.
    """

    weights: str = ""
    predictions: str = ""
    method: str = ""
    resume: bool = False
    limit_videos: int | None = None
    save_predictions: bool = True
    worst: int = 6
    device: str = "auto"
    quiet: bool = False
    resamples: int = 0


def run(values: dict[str, Any], options: RunOptions) -> bool:
    """Evaluates on this process, or as a worker of the group that torchrun's environment variables describe.

    Args:
        values: the config as `config.to_dict` gives it.
        options: of the command line.

    Returns:
        whether every video was predicted and measured.

    Raises:
        ConfigError, DataError, PredictionError, CheckpointError, FileNotFoundError: one line on what cannot be built.
        ClassifierError: no entity got a name, after the report is written; or see `loop.predict_and_measure`.
        DeviceLostError, WorkerError: see `loop.predict_and_measure`.
    """
    set_arithmetic(**from_dict(values).arithmetic)
    with distributed.process_group(pick_device(options.device)) as device:
        return evaluate_on(device, values, options).complete


def evaluate_on(device: torch.device, values: dict[str, Any], options: RunOptions) -> EvaluationResult:
    """`run` on a device, as a worker of a group that is there."""
    config = from_dict(values)
    folder = Path(config.output_dir)
    on_first(lambda: make_folder(folder))
    dataset = build_dataset(config)
    prediction_format = build_prediction_format(config, dataset, Path(options.predictions or folder))
    evaluators = build_evaluation(config, dataset, prediction_format)
    if options.predictions:
        result = _measure_saved(dataset, prediction_format, evaluators, options)
    else:
        result = _predict(config, options, device, dataset, prediction_format, evaluators)
    result.run["processes"] = distributed.world_size()
    paper = to_dict(config)["evaluation"]["paper"]
    keep = bool(options.predictions or options.save_predictions or not result.complete)

    def report() -> None:
        write_report(result, folder, paper)
        write_plots(result, folder, paper, dataset, prediction_format, options.worst)
        if not keep:
            remove_predictions(folder)

    on_first(report)
    naming = result.run.get("naming", {})
    if naming.get("entities") and naming["unnamed"] == naming["entities"]:
        raise ClassifierError(f"none of {naming['entities']} entities got a name; the report is in {folder}")
    return result


def _measure_saved(
    dataset: EvaluationSet, prediction_format: PredictionFormat, evaluators: Evaluators, options: RunOptions
) -> EvaluationResult:
    if not dataset.has_truth:
        raise ConfigError(f"{dataset.title} has no ground truth here: there is nothing to evaluate")
    if not Path(options.predictions).is_dir():
        raise FileNotFoundError(f"{options.predictions}: no such folder of predictions")
    result = measure_saved(
        dataset, prediction_format, evaluators, options.limit_videos, options.quiet, options.resamples
    )
    result.run["predictions"] = options.predictions
    return result


def _predict(
    config: DictConfig,
    options: RunOptions,
    device: torch.device,
    dataset: EvaluationSet,
    prediction_format: PredictionFormat,
    evaluators: Evaluators,
) -> EvaluationResult:
    inference = to_dict(config)["inference"]
    labeller = make_labeller(config, dataset, prediction_format.folder / SHEETS)

    tracking, identity = None, identity_of(config)
    if is_tracked(config, dataset) and not options.method:
        method: Any = VideoTracking(config, options.weights, dataset, device)
        tracking = method
    else:
        node = method_node(options.method or "entitysam")
        given = to_dict(config)
        method = build_method(
            node,
            MethodContext(
                options.weights, given["model"], inference, str(device), config.seed, given["evaluation"]["reid"]
            ),
        )
        identity["method"] = fingerprint(node)
    identity["weights"] = file_fingerprint(options.weights) if options.weights else ""
    records = start_records(prediction_format.folder, identity, options.resume)
    result = predict_and_measure(
        dataset,
        method,
        prediction_format,
        evaluators,
        records,
        options.limit_videos,
        options.quiet,
        labeller,
        device,
        options.resamples,
    )
    result.run |= {"weights": options.weights, "method": options.method, "inference": inference}
    if tracking is not None:
        result.run["tracker"] = to_dict(config)["evaluation"]["tracker"]
        result.warnings |= sum_counts(distributed.gather(tracking.warnings))
    if labeller is not None:
        naming = result.run["naming"] = sum_statistics(distributed.gather(labeller.statistics()))
        if naming["unnamed"]:
            result.warnings["entities without a name, left out"] = naming["unnamed"]
    return result


class Metrics(dict[str, float]):
    """Metrics in percent by name.

    Attributes:
        complete: every video was predicted and measured; otherwise the metrics cover only a part of the data set.
    """

    def __init__(self, values: Mapping[str, float], complete: bool) -> None:
        super().__init__(values)
        self.complete = complete


def evaluate(model: nn.Module, config: DictConfig, output_dir: str | Path) -> Metrics:
    """Evaluates a model as `config.evaluation` says; called on every worker of a training.

    Args:
        model: an `EntitySAM` in eval mode, on its device.
        config: the whole `Config`.
        output_dir: of the report; predictions are not kept.

    Returns:
        metrics in percent, the same on every worker, and whether they cover every video.

    Raises:
        ConfigError, DataError: one line on what cannot be built.
        ClassifierError, DeviceLostError, WorkerError: see `loop.predict_and_measure`.
    """
    folder = Path(output_dir)
    on_first(lambda: make_folder(folder))
    dataset = build_dataset(config)
    prediction_format = build_prediction_format(config, dataset, folder)
    evaluators = build_evaluation(config, dataset, prediction_format)
    records = start_records(folder, {}, resume=False)
    method: VideoMethod = build_segmenter(model, to_dict(config)["inference"])
    labeller = make_labeller(config, dataset)
    result = predict_and_measure(dataset, method, prediction_format, evaluators, records, quiet=True, labeller=labeller)

    def report() -> None:
        write_report(result, folder, to_dict(config)["evaluation"]["paper"])
        remove_predictions(folder)

    on_first(report)
    return Metrics(result.metrics, result.complete)


def check_evaluation(config: DictConfig) -> None:
    """Builds what `evaluate` builds, so that a wrong config fails at the start of a training.

    Raises:
        ConfigError, DataError: see `evaluate`.
    """
    dataset = build_dataset(config)
    build_evaluation(config, dataset, build_prediction_format(config, dataset, Path(config.output_dir)))
    make_labeller(config, dataset)


def build_dataset(config: DictConfig) -> EvaluationSet:
    """The data set of `evaluation.dataset`.

    Raises:
        ConfigError: none given, or one for training.
        DataError: files missing or broken.
    """
    node = to_dict(config)["evaluation"]["dataset"]
    if not node:
        raise ConfigError("evaluation.dataset: missing; see configs/eval for examples")
    dataset = build(DATASETS, node, "evaluation.dataset")
    if not isinstance(dataset, EvaluationSet):
        raise ConfigError(f"evaluation.dataset.name: '{node['name']}' is for training, not for evaluation")
    return dataset


def build_prediction_format(config: DictConfig, dataset: EvaluationSet, folder: Path) -> PredictionFormat:
    """The prediction format of a data set in a folder.

    Raises:
        ConfigError: unknown task, or one with categories for annotations without.
    """
    task = config.evaluation.task
    if task not in TASKS:
        raise ConfigError(f"evaluation.task: one of {', '.join(TASKS)}, not '{task}'")
    if task != ENTITY_TASK and not dataset.categories:
        raise ConfigError(f"{dataset.title}: its annotations list no categories, which evaluation.task '{task}' needs")
    return PREDICTION_FORMATS[dataset.annotation_format](folder, dataset, class_agnostic=task == ENTITY_TASK)


def build_evaluation(config: DictConfig, dataset: EvaluationSet, prediction_format: PredictionFormat) -> Evaluators:
    """The evaluators of `evaluation.evaluators` by name; none if there is no ground truth.

    Raises:
        ConfigError: none given, unknown name or key, or one that needs other annotations.
    """
    nodes = to_dict(config)["evaluation"]["evaluators"]
    if not nodes:
        raise ConfigError("evaluation.evaluators: none given, e.g. [{name: veq}, {name: stq_en}]")
    entity = [{"id": ENTITY, "name": "entity", "isthing": 1}]
    evaluators = build_evaluators(nodes, categories=entity if prediction_format.class_agnostic else dataset.categories)
    check_input_types(evaluators, prediction_format)
    if not dataset.has_truth:
        logger.warning("%s has no ground truth here: predictions are written but not evaluated", dataset.title)
        return {}
    return evaluators


def make_labeller(config: DictConfig, dataset: EvaluationSet, sheets: Path | None = None) -> VideoLabeller | None:
    """Assigns categories to entities; None for the entity task.

    Raises:
        ConfigError: a class-specific task without classifier.
    """
    if config.evaluation.task == ENTITY_TASK or is_tracked(config, dataset):
        return None
    return build_video_labeller(to_dict(config)["evaluation"]["classifier"], config.evaluation.task, dataset, sheets)


def is_tracked(config: DictConfig, dataset: EvaluationSet) -> bool:
    """Whether detections are tracked, which have their categories, instead of entities segmented."""
    return dataset.annotation_format == "tracks" or bool(config.evaluation.tracker)


def sum_counts(parts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Counts by name, summed over processes."""
    return dict(sum((Counter(part) for part in parts), Counter()))


def identity_of(config: DictConfig) -> dict[str, Any]:
    """The parts of the config that determine predictions."""
    values = to_dict(config)
    evaluation: Mapping[str, Any] = values["evaluation"]
    chosen = {key: values[key] for key in ("model", "inference", "seed")}
    return {**chosen, **{key: evaluation[key] for key in ("dataset", "task", "classifier", "tracker", "reid")}}


def start_records(folder: Path, fingerprint: Mapping[str, Any], resume: bool) -> RecordStore:
    """The records of finished videos; the first process starts or resumes the run.

    Raises:
        ConfigError: the run to resume was another one; the message names the first difference. Or a new run would
            overwrite predictions that no run made.
    """

    def start() -> None:
        foreign = next((folder / name for name in PREDICTIONS if (folder / name).exists()), None)
        if foreign is not None and not (folder / RECORDS).exists():
            raise ConfigError(f"{foreign}: exists and was not written by an evaluation; choose another output_dir")
        RecordStore.start(folder / RECORDS, fingerprint, resume)

    on_first(start)
    return RecordStore(folder / RECORDS)


def on_first(action: Callable[[], Any]) -> None:
    """Runs an action on the first process while the others wait; if it fails there, it fails on all of them.

    Raises:
        ConfigError: the action raised a ValueError or an OSError; with its message.
        WorkerError: on the other processes, if the action raised any other error.
    """
    work, problem = distributed.SharedWork(), ""
    if distributed.rank() == 0:
        try:
            action()
        except (ValueError, OSError) as error:
            problem = str(error)
        except Exception as error:
            work.fail(str(error) or type(error).__name__)
            raise
    work.wait()
    problem = distributed.gather(problem)[0]
    if problem:
        raise ConfigError(problem)


def remove_predictions(folder: Path) -> None:
    """Removes everything but the report."""
    for name in (RECORDS, SHEETS, *PREDICTIONS):
        if (folder / name).is_dir() and not (folder / name).is_symlink():
            shutil.rmtree(folder / name, ignore_errors=True)
        else:
            (folder / name).unlink(missing_ok=True)
