"""Logs of a training run: console lines, metrics.jsonl, TensorBoard, Weights & Biases and images."""

import json
import logging
import os
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from PIL import Image

from entitysam import distributed
from entitysam.registry import ConfigError

logger = logging.getLogger(__name__)


def set_up_logging(folder: Path | None = None) -> None:
    """Sends the package's messages to the console and to `folder`/log.txt; other workers than the first only warn."""
    root = logging.getLogger("entitysam")
    root.setLevel(logging.INFO if distributed.rank() == 0 else logging.WARNING)
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if folder is not None and distributed.rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(folder / "log.txt"))
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%m-%d %H:%M:%S"))
        root.addHandler(handler)


def peak_memory_gb(device: torch.device) -> float:
    """Peak memory so far: of the allocator on CUDA, of this process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


class RunLogger:
    """Collects the numbers of every iteration and logs their means once per period, on the first worker only.

    Args:
        folder: the run's output folder.
        config: `TrainConfig`.
        max_iters: for the estimate of the remaining time.
        start: iteration from which the run starts; later rows of an interrupted run are dropped.
        run_config: the whole config as plain Python, for Weights & Biases.
        evaluated: iteration of the last complete evaluation, whose later rows are dropped; None = `start`.
    """

    def __init__(
        self,
        folder: Path,
        config: DictConfig,
        max_iters: int,
        device: torch.device,
        start: int,
        run_config: dict,
        evaluated: int | None = None,
    ) -> None:
        self.folder, self.period, self.max_iters, self.device = folder, config.log_period, max_iters, device
        self.active = distributed.rank() == 0
        self.sums: dict[str, float] = defaultdict(float)
        self.count = 0
        self.board: Any = None
        self.wandb: Any = None
        self.metrics_file = folder / "metrics.jsonl"
        if not self.active:
            return
        folder.mkdir(parents=True, exist_ok=True)
        keep_rows(self.metrics_file, start, start if evaluated is None else evaluated)
        if config.tensorboard:
            self.board = _tensorboard(folder, start)
        if config.wandb:
            self.wandb = _wandb(config.wandb, folder, run_config)

    def iteration(self, iteration: int, losses: Mapping[str, float], rate: float, times: Mapping[str, float]) -> None:
        """Adds one finished iteration (counted from 1) and logs at the end of a period.

        Args:
            losses: means over the workers.
            rate: learning rate.
            times: seconds of the whole `step`, and of waiting for `data`.
        """
        if not self.active:
            return
        self.count += 1
        for name, value in {**losses, **{f"time/{name}": seconds for name, seconds in times.items()}}.items():
            self.sums[name] += value
        if iteration % self.period and iteration != self.max_iters:
            return
        means = {name: total / self.count for name, total in self.sums.items()}
        self.sums.clear()
        self.count = 0
        memory = peak_memory_gb(self.device)
        self.scalars(iteration, {**means, "lr": rate, "memory_gb": memory})
        self._console(iteration, means, rate, memory)

    def _console(self, iteration: int, means: Mapping[str, float], rate: float, memory: float) -> None:
        losses = "  ".join(f"{name} {value:.4f}" for name, value in means.items() if not name.startswith("time/"))
        step, data = means["time/step"], means["time/data"]
        left = time.strftime("%H:%M:%S", time.gmtime(step * (self.max_iters - iteration) % 86400))
        days = int(step * (self.max_iters - iteration) // 86400)
        logger.info(
            "iter %d/%d  %s  lr %.2e  %.3f s/it (data %.3f)  %.1f GB  left %s%s",
            *(iteration, self.max_iters, losses, rate, step, data, memory, f"{days}d " if days else "", left),
        )

    def scalars(self, iteration: int, values: Mapping[str, float]) -> None:
        """One row of named numbers to every log."""
        if not self.active:
            return
        with open(self.metrics_file, "a") as stream:
            stream.write(json.dumps({"iteration": iteration, **values}) + "\n")
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(name, value, iteration)
        if self.wandb is not None:
            self.wandb.log(dict(values), step=iteration)

    def image(self, iteration: int, name: str, image: np.ndarray) -> None:
        """uint8 [H, W, 3] RGB to `images/<name>_<iteration>.png` and the other logs."""
        if not self.active:
            return
        path = self.folder / "images" / f"{name}_{iteration:07d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
        if self.board is not None:
            self.board.add_image(name, image, iteration, dataformats="HWC")
        if self.wandb is not None:
            import wandb

            self.wandb.log({name: wandb.Image(image)}, step=iteration)

    def close(self) -> None:
        if self.board is not None:
            self.board.close()
        if self.wandb is not None:
            self.wandb.finish()


def keep_rows(path: Path, last: int, evaluated: int) -> None:
    """Drops rows of metrics.jsonl after iteration `last`, of evaluations after `evaluated`, and incomplete lines."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        is_evaluation = any(key.startswith("eval/") for key in row)
        if row["iteration"] <= (evaluated if is_evaluation else last):
            kept.append(line)
    partial = path.with_suffix(".partial")
    partial.write_text("".join(line + "\n" for line in kept))
    os.replace(partial, path)


def _tensorboard(folder: Path, start: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        logger.warning("TensorBoard is not installed (pip install 'entitysam[train]'): no event files")
        return None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)


def _wandb(project: str, folder: Path, run_config: dict) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise ConfigError(
            "train.wandb: Weights & Biases is not installed; pip install 'entitysam[wandb]' or train.wandb=''"
        ) from error
    return wandb.init(project=project, dir=str(folder), name=folder.name, config=run_config, resume="allow")
