"""The training loop."""

import logging
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from entitysam import distributed
from entitysam.config import TrainConfig, to_dict, to_yaml
from entitysam.engine.train.optim import build_optimizer, learning_rate, set_learning_rate
from entitysam.engine.train.run_logger import RunLogger
from entitysam.engine.train.state import (
    CheckpointFolder,
    TrainingState,
    random_state,
    save_atomically,
    set_random_state,
    write_config,
)
from entitysam.engine.train.visualize import training_image
from entitysam.losses.entity_criterion import mean_num_masks
from entitysam.precision import AMP, autocast
from entitysam.registry import ConfigError
from entitysam.structures import Clip, ClipOutput, PairOutput

logger = logging.getLogger(__name__)

FINAL = "model_final.pt"  # weights and config alone, for evaluation or as initial weights of the next stage

ClipSource = Callable[
    [int], Iterator[Clip]
]  # clips consumed so far by all workers -> this worker's clips from there on
Evaluation = Callable[[nn.Module, int], dict[str, float]]  # (model, iteration) -> named numbers, 100 = perfect
IDENTITY = ("model.", "criterion.", "data.mapper.", "seed")  # config keys that a resumed run must not change

Output = ClipOutput | PairOutput  # of a network in training; the trainer only detaches it and passes it on


class Criterion(Protocol):
    """The losses of a clip. All randomness comes from the generator."""

    def inputs(self, clips: Sequence[Clip], generators: Sequence[torch.Generator]) -> tuple[Any, ...]:
        """Arguments of the network for these clips; it returns one output for one clip, a list for several."""
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

    A step has `train.batch_size` clips over all workers, `train.clips_per_forward` per forward pass; gradients are
    accumulated over the forward passes. Random points are drawn from the seed and the clip's index, so the result does
    not depend on the number of workers. Checkpoints are written before an evaluation, not after it: a signal or an error
    in a long evaluation loses no training.

    Args:
        model: on `device`; called with `criterion.inputs`; parameters with `requires_grad` are trained.
        criterion: losses of one clip.
        clips_from: yields this worker's share of the clips from a position on; worker r of W takes r, r + W, ...
        config: the whole `Config`.
        resume: continue from the newest readable checkpoint of `output_dir`, if there is one.
        evaluate: called every `train.eval_period` iterations, and at the end, on every worker.

    Returns:
        True when finished, False when a signal (SIGTERM, SIGINT) ended it after saving.

    Raises:
        ConfigError: a batch that cannot be divided, checkpoints in `output_dir` that would be overwritten, or a resumed run
            whose config differs in more than its length and its logs.
        NonFiniteLoss: see there.
        OSError: a file that cannot be written; the message names it.
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
    if distributed.rank() == 0:
        write_config(folder / "config.yaml", to_yaml(config))

    network = distribute(model, device)
    log = RunLogger(folder, train, optim.max_iters, device, state.iteration, state.config, state.evaluated)
    clips = clips_from(state.clips)

    def evaluate_if_due() -> None:
        finished = state.iteration == optim.max_iters
        if evaluate is None or not (finished or due(train.eval_period, state.iteration)):
            return
        if run_evaluation(evaluate, state, log, train.best_metric):
            checkpoints.save_best(state)
        checkpoints.save(state)  # again: a resumed run does not repeat this evaluation

    with StopSignal() as stop:
        if state.iteration and state.evaluated < state.iteration:
            evaluate_if_due()  # the run was interrupted in this evaluation
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
                log.image(state.iteration, "clip", draw(criterion, output, batch[-1]))
            evaluates = evaluate is not None and due(train.eval_period, state.iteration)
            stopped = distributed.any_worker(stop.asked, device) and not finished
            if stopped or finished or evaluates or due(train.save_period, state.iteration):
                checkpoints.save(state)
            if finished and distributed.rank() == 0:
                save_atomically({"model": state.weights(), "config": state.config}, folder / FINAL)
            if not stopped:
                evaluate_if_due()
                stopped = distributed.any_worker(stop.asked, device) and not finished
            if stopped:
                logger.info("stopped by a signal after iteration %d; --resume continues from there", state.iteration)
                break
    log.close()
    return state.iteration >= optim.max_iters


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
    """Forward and backward of this worker's clips of a step; gradients are reduced once, with the last clips.

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
    """Generator of a clip's random points: the same on any worker and after resuming."""
    return torch.Generator(device).manual_seed((seed * 1_000_003 + index) % 2**63)


def clips_per_worker(train: TrainConfig) -> int:
    """Number of clips of each worker per step.

    Raises:
        ConfigError: a batch that cannot be divided evenly by the workers; fewer than one clip per forward pass; an
            unknown precision.
    """
    workers = distributed.world_size()
    if train.batch_size < 1 or train.batch_size % workers:
        raise ConfigError(f"train.batch_size: {train.batch_size} clips cannot be shared evenly by {workers} worker(s)")
    if train.amp not in AMP:
        raise ConfigError(f"train.amp: {', '.join(AMP)}, not '{train.amp}'")
    if train.clips_per_forward < 1:
        raise ConfigError(f"train.clips_per_forward: at least 1, not {train.clips_per_forward}")
    return train.batch_size // workers


def distribute(model: nn.Module, device: torch.device) -> nn.Module:
    """Wraps a model in DistributedDataParallel where there are several workers.

    `find_unused_parameters` is needed because point offsets have no gradient in clips of one frame.
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
    """Scales all gradients by one factor to a norm of at most `max_norm` (0: no clipping); returns the norm before."""
    trained = [parameter for parameter in model.parameters() if parameter.grad is not None]
    return nn.utils.clip_grad_norm_(trained, max_norm if max_norm > 0 else float("inf"))


def stop_if_not_finite(
    state: TrainingState,
    means: dict[str, float],
    losses: dict[str, Tensor],
    batch: list[Clip],
    folder: Path,
) -> None:
    """Raises NonFiniteLoss on all workers where one has a non-finite loss or gradient; each saves its own clips first.

    With fp16 an infinite gradient is expected: the GradScaler skips the step and lowers its scale.
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
        ConfigError: a fresh start in a folder with checkpoints of an earlier run, or a config that differs from the
            checkpoint's in what must not change; see `check_same_run`.
    """
    if not resume:
        if checkpoints.files():
            raise ConfigError(
                f"output_dir: {checkpoints.folder} holds checkpoints of an earlier run; "
                "go on with --resume, or choose another output_dir"
            )
        return
    path = checkpoints.load_newest(state, check_same_run)
    if path is None:
        logger.warning("nothing to resume in %s; starting from the beginning", checkpoints.folder)
    else:
        logger.info("resumed %s: iteration %d, %d clips seen", path, state.iteration, state.clips)


def check_same_run(earlier: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Compares the config of a checkpoint with that of the run that resumes it; other differences are logged.

    Raises:
        ConfigError: another network, criterion, data mapper or seed, with which the run would not be the same one.
    """
    before, now = flatten(earlier), flatten(config)
    changed = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    if not changed:
        return
    shown = [f"{key} was {before.get(key)} and is {now.get(key)}" for key in changed]
    fixed = [text for key, text in zip(changed, shown) if key.startswith(IDENTITY)]
    if fixed:
        raise ConfigError(
            f"--resume: the config is not that of the run: {'; '.join(fixed[:3])}; choose another output_dir"
        )
    logger.warning("the config has changed since the checkpoint: %s", "; ".join(shown))


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one mapping from dotted keys to values."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def run_evaluation(evaluate: Evaluation, state: TrainingState, log: RunLogger, best_metric: str) -> bool:
    """Evaluates, logs, and returns whether `best_metric` is the best of the run. Random states are as before afterwards.

    An evaluation that lacks videos (`complete` of its results) is logged and never the best.
    """
    state.model.eval()
    random = random_state()
    results = evaluate(state.model, state.iteration)
    set_random_state(random)
    state.evaluated = state.iteration
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
    """The image of a clip for the log; its own generator leaves the random states of the run unchanged."""
    return training_image(clip, output, criterion, clip_generator(0, clip.index, clip.frames.device))


def due(period: int, iteration: int, finished: bool = False) -> bool:
    """Whether an action with a period (0 = never) is due after this iteration; at the end it always is."""
    return period > 0 and (finished or iteration % period == 0)


class StopSignal:
    """Turns the first SIGTERM or SIGINT into a flag, so that the run can save; a second one has its default effect."""

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
