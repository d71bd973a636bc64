"""The training loop, visible from top to bottom."""

import logging
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from entitysam import distributed
from entitysam.config import TrainConfig, to_dict
from entitysam.engine.train.optim import build_optimizer, learning_rate, set_learning_rate
from entitysam.engine.train.run_logger import RunLogger
from entitysam.engine.train.state import CheckpointFolder, TrainingState, save_atomically
from entitysam.engine.train.visualize import training_picture
from entitysam.losses.entity_criterion import mean_num_masks
from entitysam.precision import autocast
from entitysam.registry import ConfigError
from entitysam.structures import Clip, ClipOutput, PairOutput

logger = logging.getLogger(__name__)

FINAL = "model_final.pt"  # weights and config alone, to evaluate or to start the next stage from

ClipSource = Callable[
    [int], Iterator[Clip]
]  # clips consumed so far by all workers -> this worker's clips from there on
Evaluation = Callable[[nn.Module, int], dict[str, float]]  # (model, iteration) -> named numbers, 100 = perfect

Output = ClipOutput | PairOutput  # what a network says in training; the trainer only detaches and hands it on


class Criterion(Protocol):
    """What a network is trained for; chance comes from the generator alone."""

    def inputs(self, clips: Sequence[Clip], generators: Sequence[torch.Generator]) -> tuple[Any, ...]:
        """What the network is called with for these clips; for one it gives its output, for several the list of theirs."""
        ...

    def __call__(self, output: Any, targets: Any, generator: torch.Generator, num_masks: Tensor) -> dict[str, Tensor]:
        """Losses of the clip by name; `total` is the one that is minimised."""
        ...


class NonFiniteLoss(RuntimeError):
    """The loss or the gradient is infinite or not a number; the message names iteration, images and the saved dump."""


def fit(
    model: nn.Module,
    criterion: Criterion,
    clips_from: ClipSource,
    config: DictConfig,
    device: torch.device,
    resume: bool = False,
    evaluate: Evaluation | None = None,
) -> bool:
    """Trains until `optim.max_iters` and writes everything to `output_dir`.

    A step sees `train.batch_size` clips over all workers, `train.clips_per_forward` per forward pass; where there are
    more, gradients are accumulated. Random points are drawn from the seed and the clip's index, so the result does not
    depend on how many workers share a step.

    Args:
        model: on `device`; called with `criterion.inputs`; `requires_grad` says what is trained.
        criterion: losses of one clip.
        clips_from: gives this worker's share of the clips from a position on; worker r of W takes r, r + W, ...
        config: the whole `Config`.
        resume: go on from the newest readable checkpoint of `output_dir`, if there is one.
        evaluate: called every `train.eval_period` iterations, and at the end, on every worker.

    Returns:
        True when finished, False when a signal (SIGTERM, SIGINT) ended it after saving.

    Raises:
        ConfigError: a batch that cannot be divided, or checkpoints in `output_dir` that would be overwritten.
        NonFiniteLoss: see there.
    """
    train, optim = config.train, config.optim
    accumulate = clips_per_worker(train)
    folder = Path(config.output_dir)
    scaler = torch.amp.GradScaler(device.type, enabled=train.amp == "fp16")
    state = TrainingState(model, build_optimizer(model, optim), scaler, to_dict(config))
    if train.ema:
        state.start_ema()
    checkpoints = CheckpointFolder(folder, train.keep_last)
    start_or_resume(state, checkpoints, resume)

    network = distribute(model, device)
    log = RunLogger(folder, train, optim.max_iters, device, state.iteration, state.config)
    clips = clips_from(state.clips)
    with StopSignal() as stop:
        while state.iteration < optim.max_iters:
            model.train()
            started = time.perf_counter()
            batch = [next(clips).to(device) for _ in range(accumulate)]
            waited = time.perf_counter() - started
            means, output = step(network, criterion, batch, state, config)
            seconds = {"step": time.perf_counter() - started, "data": waited}

            finished = state.iteration == optim.max_iters
            log.iteration(state.iteration, means, state.optimizer.param_groups[0]["lr"], seconds)
            if due(train.image_period, state.iteration, finished):
                log.picture(state.iteration, "clip", draw(criterion, output, batch[-1]))
            is_best = False
            if evaluate is not None and (finished or due(train.eval_period, state.iteration)):
                is_best = run_evaluation(evaluate, state, log, train.best_metric)
            stopped = distributed.any_worker(stop.asked, device) and not finished
            if is_best or stopped or finished or due(train.save_period, state.iteration):
                checkpoints.save(state, is_best)
            if stopped:
                logger.info("stopped by a signal after iteration %d; --resume goes on from there", state.iteration)
                break
    log.close()
    if state.iteration < optim.max_iters:
        return False
    if distributed.rank() == 0:
        save_atomically({"model": state.weights(), "config": state.config}, folder / FINAL)
    return True


def step(
    network: nn.Module, criterion: Criterion, batch: list[Clip], state: TrainingState, config: DictConfig
) -> tuple[dict[str, float], Output]:
    """One optimiser step; counts iteration and clips.

    Args:
        network: the state's model, wrapped or not.
        batch: this worker's clips of the step.

    Returns:
        losses and gradient norm, averaged over all clips, and the output of the last clip.

    Raises:
        NonFiniteLoss: before anything is updated.
    """
    set_learning_rate(state.optimizer, learning_rate(config.optim, state.iteration))
    losses, output = backward(network, criterion, batch, state.scaler, config.train, config.seed)
    state.scaler.unscale_(state.optimizer)
    norm = clip_gradients(state.model, config.optim.clip_norm)
    means = distributed.mean_dict({**losses, "grad_norm": norm})
    stop_if_not_finite(state, means, losses, batch, Path(config.output_dir))
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)
    state.iteration += 1
    state.clips += config.train.batch_size
    state.update_ema(config.train.ema)
    return means, output


def backward(
    network: nn.Module,
    criterion: Criterion,
    batch: list[Clip],
    scaler: torch.amp.GradScaler,
    train: TrainConfig,
    seed: int,
) -> tuple[dict[str, Tensor], Output]:
    """Forward and backward of this worker's clips of a step; workers talk once, with the last clips.

    Returns:
        the losses, averaged over the clips, and the last clip's output.
    """
    device = batch[0].frames.device
    masks_per_clip = sum(len(clip.targets) * len(clip.frames) for clip in batch) / len(batch)
    num_masks = mean_num_masks(masks_per_clip, device)
    sums: dict[str, Tensor] = {}
    for start in range(0, len(batch), train.clips_per_forward):
        clips = batch[start : start + train.clips_per_forward]
        silent = isinstance(network, DistributedDataParallel) and start + len(clips) < len(batch)
        generators = [clip_generator(seed, clip.index, device) for clip in clips]
        with network.no_sync() if silent else nullcontext():  # type: ignore[operator]
            with autocast(train.amp, device):
                outputs = network(*criterion.inputs(clips, generators))
            outputs = [outputs] if len(clips) == 1 else outputs
            total = torch.zeros((), device=device)
            for clip, output, generator in zip(clips, outputs, generators, strict=True):
                losses = criterion(output, clip.targets, generator, num_masks)
                total = total + losses["total"] / len(batch)
                for name, loss in losses.items():
                    sums[name] = sums.get(name, 0) + loss.detach() / len(batch)
            scaler.scale(total).backward()
    return sums, outputs[-1].detach()


def clip_generator(seed: int, index: int, device: torch.device) -> torch.Generator:
    """Source of a clip's random points: the same on any worker and after any resume."""
    return torch.Generator(device).manual_seed((seed * 1_000_003 + index) % 2**63)


def clips_per_worker(train: TrainConfig) -> int:
    """Clips each worker accumulates per step.

    Raises:
        ConfigError: the workers cannot share the batch evenly; no clip in a forward pass.
    """
    workers = distributed.world_size()
    if train.batch_size < 1 or train.batch_size % workers:
        raise ConfigError(f"train.batch_size: {train.batch_size} clips cannot be shared evenly by {workers} worker(s)")
    if train.clips_per_forward < 1:
        raise ConfigError(f"train.clips_per_forward: at least 1, not {train.clips_per_forward}")
    return train.batch_size // workers


def distribute(model: nn.Module, device: torch.device) -> nn.Module:
    """DistributedDataParallel where there are several workers.

    It must look for parameters without a gradient: point offsets are not used in clips of one frame.
    """
    if distributed.world_size() == 1:
        return model
    return DistributedDataParallel(
        model,
        device_ids=[device] if device.type == "cuda" else None,
        broadcast_buffers=False,
        find_unused_parameters=True,
        gradient_as_bucket_view=True,
    )


def clip_gradients(model: nn.Module, max_norm: float) -> Tensor:
    """Scales all gradients together to at most `max_norm` (0: leaves them) and returns the norm they had."""
    trained = [parameter for parameter in model.parameters() if parameter.grad is not None]
    return nn.utils.clip_grad_norm_(trained, max_norm if max_norm > 0 else float("inf"))


def stop_if_not_finite(
    state: TrainingState,
    means: dict[str, float],
    losses: dict[str, Tensor],
    batch: list[Clip],
    folder: Path,
) -> None:
    """Raises NonFiniteLoss on every worker as soon as one has such a loss; each saves its own clips first.

    With fp16 an infinite gradient is the GradScaler's daily business: the step is skipped, nothing stops.
    """
    watched = [value for name, value in means.items() if not (state.scaler.is_enabled() and name == "grad_norm")]
    if bool(torch.isfinite(torch.tensor(watched)).all()):
        return
    dump = folder / f"non_finite_iteration_{state.iteration:07d}_worker_{distributed.rank()}.pt"
    own = {name: float(loss) for name, loss in losses.items()}
    sources = [clip.source for clip in batch]
    content = {
        "iteration": state.iteration,
        "losses": own,
        "sources": sources,
        "indices": [clip.index for clip in batch],
        "frames": [clip.frames.cpu() for clip in batch],
        "targets": [vars(clip.targets.to("cpu")) for clip in batch],
        "model": state.model.state_dict(),
    }
    save_atomically(content, dump)
    shown = ", ".join(f"{name} {value:.4g}" for name, value in {**own, "grad_norm": means["grad_norm"]}.items())
    raise NonFiniteLoss(f"iteration {state.iteration}: {shown}; images: {', '.join(sources)}; saved {dump}")


def start_or_resume(state: TrainingState, checkpoints: CheckpointFolder, resume: bool) -> None:
    """Loads the newest checkpoint if asked to.

    Raises:
        ConfigError: a fresh start where an earlier run's checkpoints lie.
    """
    if not resume:
        if checkpoints.files():
            raise ConfigError(
                f"output_dir: {checkpoints.folder} holds checkpoints of an earlier run; "
                "go on with --resume, or choose another output_dir"
            )
        return
    path = checkpoints.load_newest(state)
    if path is None:
        logger.warning("nothing to resume in %s; starting from the beginning", checkpoints.folder)
    else:
        logger.info("resumed %s: iteration %d, %d clips seen", path, state.iteration, state.clips)


def run_evaluation(evaluate: Evaluation, state: TrainingState, log: RunLogger, best_metric: str) -> bool:
    """Evaluates, logs, and says whether `best_metric` is better than ever."""
    state.model.eval()
    results = evaluate(state.model, state.iteration)
    log.scalars(state.iteration, {f"eval/{name}": value for name, value in results.items()})
    logger.info("evaluation: %s", "  ".join(f"{name} {value:.2f}" for name, value in results.items()))
    if not getattr(results, "complete", True):
        logger.warning("evaluation: some videos failed, so that %s is not compared with the best one", best_metric)
        return False
    value = results.get(best_metric)
    if value is None or (state.best is not None and value <= state.best):
        return False
    state.best = value
    return True


def draw(criterion: Criterion, output: Output, clip: Clip) -> np.ndarray:
    """The picture of a clip; own random source, so that looking changes nothing."""
    return training_picture(clip, output, criterion, clip_generator(0, clip.index, clip.frames.device))


def due(period: int, iteration: int, finished: bool = False) -> bool:
    """Whether something with a period (0 = never) is to happen after this iteration; at the end it always does."""
    return period > 0 and (finished or iteration % period == 0)


class StopSignal:
    """Turns the first SIGTERM or SIGINT into a flag, so that the run can save; a second one has its usual effect."""

    def __init__(self) -> None:
        self.asked = False
        self.previous: dict[int, object] = {}

    def __enter__(self) -> "StopSignal":
        for number in (signal.SIGTERM, signal.SIGINT):
            self.previous[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, _frame: object) -> None:
        self.asked = True
        signal.signal(number, self.previous[number])  # type: ignore[arg-type]

    def __exit__(self, *_exception: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
