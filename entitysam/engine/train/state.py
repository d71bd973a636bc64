"""Training checkpoints: everything that an exact resume needs, as plain tensors and containers.

A checkpoint can be read with `torch.load(weights_only=True)` and carries its config, so that evaluation needs no flags.
"""

import logging
import os
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from entitysam import distributed
from entitysam.io.files import make_folder, whole_file

logger = logging.getLogger(__name__)
BEST = "best.pt"
FILE_NAME = re.compile(r"checkpoint_(\d{7,})\.pt")


@dataclass
class TrainingState:
    """Everything that changes during a run.

    Attributes:
        model, optimizer, scaler: the objects themselves.
        config: the run's config as plain Python.
        iteration: optimiser steps done.
        clips: clips consumed by all workers, i.e. the position in the data order.
        best: best value of the metric so far, None before the first evaluation.
        ema: moving average of the floating-point tensors of the model's state dict, by name; None where there is none.
        evaluated: iteration of the last complete evaluation, 0 before the first.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    config: dict[str, Any] = field(default_factory=dict)
    iteration: int = 0
    clips: int = 0
    best: float | None = None
    ema: dict[str, torch.Tensor] | None = None
    evaluated: int = 0

    def start_ema(self) -> None:
        """Initialises the moving average with the current weights."""
        self.ema = {name: tensor.clone() for name, tensor in self._floating().items()}

    @torch.no_grad()
    def update_ema(self, decay: float) -> None:
        """Updates the moving average, in the first iterations with less than `decay`."""
        if self.ema is not None:
            decay = min(decay, (1 + self.iteration) / (10 + self.iteration))
            own = self._floating()
            torch._foreach_lerp_([self.ema[name] for name in own], list(own.values()), 1 - decay)

    def weights(self) -> dict[str, torch.Tensor]:
        """The state dict of the trained model: averaged where there is a moving average."""
        return {**self.model.state_dict(), **(self.ema or {})}

    def _floating(self) -> dict[str, torch.Tensor]:
        return {name: tensor for name, tensor in self.model.state_dict().items() if tensor.is_floating_point()}

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors and containers. A collective call, which gathers the random states of all workers."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "config": self.config,
            "iteration": self.iteration,
            "clips": self.clips,
            "best": self.best,
            "evaluated": self.evaluated,
            "random": distributed.gather(random_state()),
        } | ({} if self.ema is None else {"ema": self.ema})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores everything; the random states only for the same number of workers.

        Raises:
            ValueError: the checkpoint belongs to another model or lacks parts.
        """
        missing = [key for key in ("model", "optimizer", "scaler", "iteration", "clips", "random") if key not in state]
        if missing:
            raise ValueError(f"not a training checkpoint: it has no {', '.join(missing)}")
        check_same_model(self.model, state["model"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.iteration, self.clips, self.best = state["iteration"], state["clips"], state.get("best")
        if self.ema is not None and "ema" in state:
            for name, tensor in state["ema"].items():
                self.ema[name].copy_(tensor)
        self.evaluated = state.get("evaluated", self.iteration)
        if len(state["random"]) == distributed.world_size():
            set_random_state(state["random"][distributed.rank()])


def check_same_model(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Raises ValueError, naming the first tensor, unless names and shapes agree."""
    own = model.state_dict()
    for name in own:
        if name not in tensors:
            raise ValueError(f"checkpoint of another model: it has no '{name}'")
        if own[name].shape != tensors[name].shape:
            shapes = f"{tuple(tensors[name].shape)} instead of {tuple(own[name].shape)}"
            raise ValueError(f"checkpoint of another model: '{name}' is {shapes}")
    for name in tensors:
        if name not in own:
            raise ValueError(f"checkpoint of another model: '{name}' is unknown here")


def random_state() -> dict[str, Any]:
    """State of the generators of Python, NumPy, torch and CUDA as tensors and plain Python."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (
            str(name),
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """The inverse of `random_state`."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())


def save_atomically(content: Any, path: Path) -> None:
    """`torch.save` that writes either the whole file or none.

    Raises:
        OutputError: the file cannot be written, e.g. because the disk is full; the message names it.
    """
    make_folder(path.parent)
    with whole_file(path) as partial, open(partial, "wb") as stream:
        try:
            torch.save(content, stream)
        except RuntimeError as error:  # torch's writer hides the error of the operating system
            raise OSError(f"{str(error).splitlines()[0]}; is the disk full?") from error
        stream.flush()
        os.fsync(stream.fileno())


def write_config(path: Path, text: str) -> None:
    """Writes the config of a run; a different one of an earlier part of the run is kept as `config.<n>.yaml`."""
    make_folder(path.parent)
    if path.is_file() and path.read_text(encoding="utf-8") != text:
        number = 1
        while path.with_name(f"{path.stem}.{number}{path.suffix}").exists():
            number += 1
        path.rename(path.with_name(f"{path.stem}.{number}{path.suffix}"))
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


class CheckpointFolder:
    """The checkpoints of a run: the newest `keep_last` of `checkpoint_<iteration>.pt`, and `best.pt`.

    Args:
        folder: the run's output folder.
        keep_last: number of checkpoints to keep; 0 keeps all.
    """

    def __init__(self, folder: Path, keep_last: int) -> None:
        self.folder = folder
        self.keep_last = keep_last

    def files(self) -> list[Path]:
        """Checkpoints by iteration, oldest first."""
        found = [path for path in self.folder.glob("checkpoint_*.pt") if FILE_NAME.fullmatch(path.name)]
        return sorted(found, key=lambda path: int(FILE_NAME.fullmatch(path.name).group(1)))  # type: ignore[union-attr]

    def save(self, state: TrainingState) -> None:
        """Writes the state; a collective call, of which the first worker writes."""
        content = state.state_dict()
        if distributed.rank() == 0:
            path = self.folder / f"checkpoint_{state.iteration:07d}.pt"
            save_atomically(content, path)
            logger.info("saved %s", path)
            for old in self.files()[: -self.keep_last] if self.keep_last > 0 else []:
                old.unlink()
        distributed.barrier()

    def save_best(self, state: TrainingState) -> None:
        """Writes the state to `best.pt`; a collective call."""
        content = state.state_dict()
        if distributed.rank() == 0:
            save_atomically(content, self.folder / BEST)
        distributed.barrier()

    def load_newest(self, state: TrainingState, check: Callable[[Any, Any], None] | None = None) -> Path | None:
        """Restores the newest readable checkpoint and returns its path; unreadable ones are logged and skipped.

        The best value so far is that of `best.pt`, which may be newer than the checkpoint.

        Args:
            state: gets the content.
            check: called with the config of the checkpoint and that of the run before anything is restored.

        Raises:
            ValueError: the checkpoint belongs to another model, or `check` refuses it.
        """
        for path in reversed(self.files()):
            try:
                content = torch.load(path, map_location="cpu", weights_only=True)
            except Exception as error:  # torch raises many types for a torn file
                logger.warning("%s cannot be read (%s); falling back to the one before", path, _first_line(error))
                continue
            if check is not None and isinstance(content, dict):
                check(content.get("config") or {}, state.config)
            try:
                state.load_state_dict(content)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
            self._restore_best(state)
            return path
        return None

    def _restore_best(self, state: TrainingState) -> None:
        path = self.folder / BEST
        if not path.is_file():
            return
        try:
            best = torch.load(path, map_location="cpu", weights_only=True)
            state.best, state.evaluated = best["best"], max(state.evaluated, min(best["evaluated"], state.iteration))
        except Exception as error:  # as above
            logger.warning("%s cannot be read (%s)", path, _first_line(error))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
