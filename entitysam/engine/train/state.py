"""Training checkpoints: everything that is needed to go on bit for bit, in plain tensors and containers.

A checkpoint is `torch.load(weights_only=True)`-safe and carries its config, so that evaluation needs no flags.
"""

import logging
import os
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from entitysam import distributed

logger = logging.getLogger(__name__)
FILE_NAME = re.compile(r"checkpoint_(\d{7,})\.pt")


@dataclass
class TrainingState:
    """What changes while a run goes on.

    Attributes:
        model, optimizer, scaler: the objects themselves.
        config: the run's config as plain Python.
        iteration: optimiser steps done.
        clips: clips consumed by all workers, i.e. the position in the data order.
        best: best value of the metric so far, None before the first evaluation.
        ema: moving average of the floating-point tensors of the model's state dict, by name; None where there is none.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    config: dict[str, Any] = field(default_factory=dict)
    iteration: int = 0
    clips: int = 0
    best: float | None = None
    ema: dict[str, torch.Tensor] | None = None

    def start_ema(self) -> None:
        """Begins the moving average with the weights of now."""
        self.ema = {name: tensor.clone() for name, tensor in self._floating().items()}

    @torch.no_grad()
    def update_ema(self, decay: float) -> None:
        """Moves the average towards the weights; in the first iterations faster than `decay` says."""
        if self.ema is not None:
            decay = min(decay, (1 + self.iteration) / (10 + self.iteration))
            own = self._floating()
            torch._foreach_lerp_([self.ema[name] for name in own], list(own.values()), 1 - decay)

    def weights(self) -> dict[str, torch.Tensor]:
        """The state dict to use: averaged where there is an average."""
        return {**self.model.state_dict(), **(self.ema or {})}

    def _floating(self) -> dict[str, torch.Tensor]:
        return {name: tensor for name, tensor in self.model.state_dict().items() if tensor.is_floating_point()}

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors and containers. Every worker has to call it: it gathers their random states."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "config": self.config,
            "iteration": self.iteration,
            "clips": self.clips,
            "best": self.best,
            "random": distributed.gather(random_state()),
        } | ({} if self.ema is None else {"ema": self.ema})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores everything; the random states only where the number of workers is the same.

        Raises:
            ValueError: the checkpoint is of another model or lacks parts.
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
    """State of Python's, NumPy's, torch's and CUDA's generators as tensors and plain Python."""
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
    """`torch.save` that leaves either the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as stream:
        torch.save(content, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, path)


class CheckpointFolder:
    """The checkpoints of a run: `checkpoint_<iteration>.pt`, the newest `keep_last` of them, and `best.pt`.

    Args:
        folder: the run's output folder.
        keep_last: how many to keep; 0 keeps all.
    """

    def __init__(self, folder: Path, keep_last: int) -> None:
        self.folder = folder
        self.keep_last = keep_last

    def files(self) -> list[Path]:
        """Checkpoints by iteration, oldest first."""
        found = [path for path in self.folder.glob("checkpoint_*.pt") if FILE_NAME.fullmatch(path.name)]
        return sorted(found, key=lambda path: int(FILE_NAME.fullmatch(path.name).group(1)))  # type: ignore[union-attr]

    def save(self, state: TrainingState, is_best: bool = False) -> None:
        """Writes the state (and `best.pt`); every worker has to call it, the first one writes."""
        content = state.state_dict()
        if distributed.rank() == 0:
            path = self.folder / f"checkpoint_{state.iteration:07d}.pt"
            save_atomically(content, path)
            logger.info("saved %s", path)
            if is_best:
                save_atomically(content, self.folder / "best.pt")
            for old in self.files()[: -self.keep_last] if self.keep_last > 0 else []:
                old.unlink()
        distributed.barrier()

    def load_newest(self, state: TrainingState) -> Path | None:
        """Restores the newest checkpoint that can be read, says which ones could not, and returns its path.

        Raises:
            ValueError: the checkpoint is of another model.
        """
        for path in reversed(self.files()):
            try:
                content = torch.load(path, map_location="cpu", weights_only=True)
            except Exception as error:  # torch raises many types for a torn file
                logger.warning("%s cannot be read (%s); falling back to the one before", path, _first_line(error))
                continue
            try:
                state.load_state_dict(content)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
            return path
        return None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
