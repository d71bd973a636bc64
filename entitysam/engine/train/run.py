"""A training run from its config: builds model, criterion and data, and calls `trainer.fit`."""

import logging
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from entitysam import distributed
from entitysam.config import from_dict, to_dict
from entitysam.data.training.loader import build_loader
from entitysam.data.training.mixture import Mixture, Source
from entitysam.engine.build import open_model, pick_device
from entitysam.engine.evaluate.run import check_evaluation, evaluate
from entitysam.engine.train.run_logger import peak_memory_gb, set_up_logging
from entitysam.engine.train.trainer import ClipSource, Criterion, Evaluation, backward, clips_per_worker, fit
from entitysam.io.files import check_folder
from entitysam.precision import set_arithmetic
from entitysam.registry import CRITERIA, DATASETS, build
from entitysam.shipped import RANDOM
from entitysam.structures import Clip

logger = logging.getLogger(__name__)


def run(values: dict[str, Any], resume: bool = False, dry_run: bool = False) -> bool:
    """Trains on this process, or on this worker of a group that torchrun's environment variables describe.

    Args:
        values: the config as `config.to_dict` gives it.
        resume: continue from the newest checkpoint of `output_dir`.
        dry_run: build everything and train on one clip per worker without writing anything.

    Returns:
        False when a signal ended it early.

    Raises:
        ConfigError, CheckpointError, FileNotFoundError: a part that cannot be built; one line.
        OSError: a file that cannot be written; the message names it.
    """
    config = from_dict(values)
    set_arithmetic(**config.arithmetic)
    with distributed.process_group(pick_device(config.train.device)) as device:
        folder = Path(config.output_dir)
        set_up_logging(None if dry_run else check_folder(folder))
        clips_per_worker(config.train)
        values = to_dict(config)
        weights = values["weights"] or RANDOM
        model = open_model(values["model"], weights, device=str(device), seed=config.seed, partial=True).model
        criterion = build(CRITERIA, config.criterion, "criterion")
        logger.info("%s", describe(model, config))
        clips_from = clip_source(config, device)
        if dry_run:
            try_one_clip(model, criterion, next(clips_from(0)).to(device), config)
            return True
        return fit(model, criterion, clips_from, config, device, resume, evaluation(config))


def clip_source(config: DictConfig, device: torch.device) -> ClipSource:
    """The data of a run: from a position in the data order to this worker's endless clips.

    The mapper makes clips of the model's size unless it says otherwise.

    Raises:
        ConfigError, DataError: a data set or mapper that cannot be built.
    """
    values = to_dict(config)
    node = {"image_size": values["model"].get("image_size", 1024), **values["data"]["mapper"]}
    mapper: Any = None
    if values["data"]["datasets"]:
        dataset = build_mixture(values["data"]["datasets"], node)
    else:
        mapper = build(DATASETS, node, "data.mapper")
        dataset = build(DATASETS, values["data"]["dataset"], "data.dataset")
    return partial(
        _worker_clips,
        *(dataset, mapper),
        seed=config.seed,
        num_workers=config.data.num_workers,
        pin_memory=device.type == "cuda",
    )


def build_mixture(nodes: Sequence[dict[str, Any]], mapper: dict[str, Any]) -> Mixture:
    """The data sets of `data.datasets`, each with its weight and mapper.

    Raises:
        ConfigError, DataError: a set that cannot be built or is empty; a weight that is not positive.
    """
    sources = []
    for place, node in enumerate(nodes):
        path, own = f"data.datasets.{place}", dict(node)
        weight, changes = own.pop("weight", 1.0), own.pop("mapper", {})
        dataset = build(DATASETS, own, path)
        sources.append(Source(dataset, build(DATASETS, {**mapper, **changes}, f"{path}.mapper"), weight))
    return Mixture(sources)


def _worker_clips(dataset: Any, mapper: Any, start: int, **settings: Any) -> Iterator[Clip]:
    rank, world_size = distributed.rank(), distributed.world_size()
    return build_loader(dataset, mapper, start=start, rank=rank, world_size=world_size, **settings)


def evaluation(config: DictConfig) -> Evaluation | None:
    """What `evaluation` of the config asks for, None where it names no data set. Reports go to `output_dir`/evaluation.

    Raises:
        ConfigError, DataError: what cannot be built; now, and not at the first evaluation.
    """
    if not config.evaluation.dataset:
        return None
    check_evaluation(config)
    folder = Path(config.output_dir) / "evaluation"
    return lambda model, iteration: evaluate(model, config, folder / f"{iteration:07d}")


def describe(model: nn.Module, config: DictConfig) -> str:
    """One line on what is going to happen."""
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in model.parameters())
    workers, batch = distributed.world_size(), config.train.batch_size
    return (
        f"training {trained / 1e6:.2f} of {total / 1e6:.2f} million parameters for {config.optim.max_iters} iterations "
        f"of {batch} clips ({workers} worker(s) x {batch // workers}), {config.train.amp}, into {config.output_dir}"
    )


def try_one_clip(model: nn.Module, criterion: Criterion, clip: Clip, config: DictConfig) -> None:
    """Forward and backward of one clip, reported in one line."""
    started = time.perf_counter()
    scaler = torch.amp.GradScaler(clip.frames.device.type, enabled=False)
    losses, _ = backward(model.train(), criterion, [clip], scaler, config.train, config.seed)
    shown = "  ".join(f"{name} {float(loss):.4f}" for name, loss in losses.items())
    seconds, memory = time.perf_counter() - started, peak_memory_gb(clip.frames.device)
    logger.info("dry run on %s: %s  (%.1f s, %.1f GB)", clip.source, shown, seconds, memory)
