"""From config and command line to an evaluation: builds data set, evaluators, model or baseline, and reports."""

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from entitysam import distributed
from entitysam.checkpoint import CheckpointError, describe, load_weights, read_weights
from entitysam.config import from_dict, to_dict
from entitysam.data.videos import EvaluationSet
from entitysam.engine.build import build_model, pick_device
from entitysam.engine.evaluate import Evaluators, VideoMethod, check_borders, measure_saved, predict_and_measure
from entitysam.engine.evaluate_forms import PredictionForm
from entitysam.engine.evaluate_panoptic import ENTITY, MAPS, PanopticForm
from entitysam.engine.evaluate_progress import Records
from entitysam.engine.report import EvaluationResult, write_report
from entitysam.evaluation import build_evaluators
from entitysam.inference.video import VideoSegmenter
from entitysam.inference.writers_files import make_folder
from entitysam.registry import DATASETS, ConfigError, build

logger = logging.getLogger(__name__)

RANDOM = "random"
TASKS = {"entity": "entities without names", "vps": "panoptic", "vss": "semantic", "vis": "instance"}
FORMS: dict[str, type[PredictionForm]] = {"panoptic": PanopticForm}


@dataclass(frozen=True)
class RunOptions:
    """What the command line says besides the config.

    Attributes:
        weights: weight file, "random", or "" where none is needed.
        predictions: folder of saved predictions to evaluate instead of a model.
        resume: skip the videos that an interrupted run finished.
        limit_videos: only so many, from the first.
        save_predictions: keep the predictions after the report.
        device: see `engine.build.pick_device`.
        quiet: no progress bar.
    """

    weights: str = ""
    predictions: str = ""
    resume: bool = False
    limit_videos: int | None = None
    save_predictions: bool = True
    device: str = "auto"
    quiet: bool = False


def run(values: dict[str, Any], options: RunOptions) -> bool:
    """Evaluates on this process, or on this worker of a group that torchrun's environment variables describe.

    Args:
        values: the config as `config.to_dict` gives it.
        options: see there.

    Returns:
        whether every video could be predicted and measured.

    Raises:
        ConfigError, DataError, PredictionError, CheckpointError, FileNotFoundError: what cannot be built, in one line.
    """
    config = from_dict(values)
    with distributed.process_group(pick_device(options.device)) as device, torch.inference_mode():
        folder = Path(config.output_dir)
        dataset, evaluators = build_dataset(config), build_evaluation(config)
        if options.predictions:
            form = build_form(config, dataset, Path(options.predictions))
            check_borders(evaluators, form)
            result = measure_saved(dataset, form, evaluators, options.limit_videos, options.quiet)
            result.run = {"predictions": options.predictions}
        else:
            form = build_form(config, dataset, folder)
            check_borders(evaluators, form)
            model = open_model(config, options.weights).to(device)
            identity = {**weights_identity(options.weights), **identity_of(config)}
            records = start_records(folder, identity, options.resume)
            method = VideoSegmenter(model, **to_dict(config)["inference"])
            result = predict_and_measure(
                dataset, method, form, evaluators, records, options.limit_videos, options.quiet
            )
            result.run = {"weights": options.weights}
        result.run["processes"] = distributed.world_size()
        if distributed.rank() == 0:
            write_report(result, folder, to_dict(config)["evaluation"]["paper"])
            if not options.predictions and not options.save_predictions and not result.failures:
                remove_predictions(folder)
        distributed.barrier()
    return not result.failures


def evaluate(model: nn.Module, config: DictConfig, output_dir: str | Path) -> dict[str, float]:
    """Evaluates a model as `config.evaluation` says; to be called on every worker of a training.

    Args:
        model: an `EntitySAM` in eval mode, on its device.
        config: the whole `Config`.
        output_dir: gets the report; predictions are not kept.

    Returns:
        metrics in percent.

    Raises:
        ConfigError, DataError: what cannot be built, in one line.
    """
    folder = Path(output_dir)
    dataset, evaluators = build_dataset(config), build_evaluation(config)
    form = build_form(config, dataset, folder)
    check_borders(evaluators, form)
    records = start_records(folder, {}, resume=False)
    method: VideoMethod = VideoSegmenter(model, **to_dict(config)["inference"])  # type: ignore[arg-type]
    result = predict_and_measure(dataset, method, form, evaluators, records, quiet=True)
    if distributed.rank() == 0:
        write_report(result, folder, to_dict(config)["evaluation"]["paper"])
        remove_predictions(folder)
    distributed.barrier()
    return result.metrics


def build_dataset(config: DictConfig) -> EvaluationSet:
    """The data set of `evaluation.dataset`.

    Raises:
        ConfigError: none given, or not one of videos.
    """
    node = to_dict(config)["evaluation"]["dataset"]
    if not node:
        raise ConfigError("evaluation.dataset: missing; see configs/eval for examples")
    dataset = build(DATASETS, node, "evaluation.dataset")
    if not isinstance(dataset, EvaluationSet):
        raise ConfigError(f"evaluation.dataset.name: '{node['name']}' is for training, not for evaluation")
    return dataset


def build_evaluation(config: DictConfig, dataset: EvaluationSet | None = None) -> Evaluators:
    """The evaluators of `evaluation.evaluators`, by name.

    Raises:
        ConfigError: none given, unknown task, name or key.
    """
    evaluation = to_dict(config)["evaluation"]
    if evaluation["task"] not in TASKS:
        raise ConfigError(f"evaluation.task: one of {', '.join(TASKS)}, not '{evaluation['task']}'")
    if not evaluation["evaluators"]:
        raise ConfigError("evaluation.evaluators: none given, e.g. [{name: veq}, {name: stq_en}]")
    entity = [{"id": ENTITY, "name": "entity", "isthing": 1}]
    categories = entity if evaluation["task"] == "entity" or dataset is None else dataset.categories
    return build_evaluators(evaluation["evaluators"], categories=categories)


def build_form(config: DictConfig, dataset: EvaluationSet, folder: Path) -> PredictionForm:
    """Where and how predictions of this data set are written or read."""
    return FORMS[dataset.form](folder, dataset, class_agnostic=config.evaluation.task == "entity")


def open_model(config: DictConfig, weights: str) -> nn.Module:
    """The model of a weight file, in eval mode on the CPU; `model` of the config goes over what the file says of itself.

    Args:
        config: the whole `Config`.
        weights: a file, or "random" for the weights of the seed.

    Raises:
        ConfigError: neither the file nor the config says what model it is.
        CheckpointError, FileNotFoundError: weights that cannot be read or do not fit.
    """
    given = to_dict(config)["model"]
    if not weights:
        raise ConfigError("no --weights FILE (or --weights random), and no --predictions or --baseline either")
    if weights == RANDOM:
        if not given:
            raise ConfigError("model: missing; with random weights, name one, e.g. model=tiny")
        torch.manual_seed(config.seed)
        return build_model(given)
    state, embedded = read_weights(weights)
    if not given and embedded is None:
        raise CheckpointError(f"{weights}: carries no config and seems to be {describe(state)}; add e.g. model=vits")
    node = OmegaConf.to_container(OmegaConf.merge(embedded or {}, given))
    model = build_model(node)  # type: ignore[arg-type]
    load_weights(model, weights)
    return model


def weights_identity(weights: str) -> dict[str, Any]:
    """What tells whether a weight file is still the same: path, size and time."""
    path = Path(weights)
    if not path.is_file():
        return {"weights": weights}
    status = path.stat()
    return {"weights": [str(path.resolve()), status.st_size, status.st_mtime_ns]}


def identity_of(config: DictConfig) -> dict[str, Any]:
    """The parts of the config that decide predictions."""
    values = to_dict(config)
    evaluation: Mapping[str, Any] = values["evaluation"]
    chosen = {key: values[key] for key in ("model", "inference", "seed")}
    return {**chosen, "dataset": evaluation["dataset"], "task": evaluation["task"]}


def start_records(folder: Path, identity: Mapping[str, Any], resume: bool) -> Records:
    """Begins or resumes a run; all processes wait until one has done it.

    Raises:
        ConfigError: the run to resume was another one.
    """
    records = Records(folder)
    problem = ""
    if distributed.rank() == 0:
        try:
            make_folder(folder)
            records.start(identity, resume)
        except (ValueError, OSError) as error:
            problem = str(error)
    for message in distributed.gather(problem):
        if message:
            raise ConfigError(message)
    return records


def remove_predictions(folder: Path) -> None:
    """Leaves only the report."""
    for name in (MAPS, Records(folder).folder.name):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("pred.json", "run.json"):
        (folder / name).unlink(missing_ok=True)


__all__ = ["EvaluationResult", "RunOptions", "evaluate", "run"]
