"""Time, floating-point operations and peak memory of the stages of a frame or a training step."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from entitysam.engine.evaluate.memory import peak_memory, reset_peak

Clock = Callable[[], float]
REST = "rest"


class Stages:
    """Watches functions of an object: adds up the time they take or, while `counting`, their operations.

    Args:
        device: where they run.
        clock: seconds since whenever, e.g. `time.perf_counter`.

    Attributes:
        seconds: stage -> time so far.
        flops: stage -> operations so far; a multiplication and an addition are two. Products, convolutions and
            attention count, element-wise operations do not.
        peaks: stage, or REST for what lies between stages -> highest memory of the process during it, in MiB.
    """

    def __init__(self, device: torch.device, clock: Clock = time.perf_counter):
        self.device = device
        self.clock = clock
        self.counting = False
        self.seconds: dict[str, float] = defaultdict(float)
        self.flops: dict[str, int] = defaultdict(int)
        self.peaks: dict[str, float] = defaultdict(float)
        self._inside = False

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """The code inside counts for this stage, and so do stages that start inside it, e.g. in a recomputation."""
        if self._inside:
            yield
            return
        self._inside = True
        try:
            with self._counted(name) if self.counting else self._measured(name):
                yield
        finally:
            self._inside = False

    @contextmanager
    def _counted(self, name: str) -> Iterator[None]:
        with FlopCounterMode(display=False) as counter:
            yield
        self.flops[name] += counter.get_total_flops()

    @contextmanager
    def _measured(self, name: str) -> Iterator[None]:
        synchronise(self.device)
        self._note_peak(REST)
        started = self.clock()
        yield
        synchronise(self.device)
        self.seconds[name] += self.clock() - started
        self._note_peak(name)

    def _note_peak(self, name: str) -> None:
        """Assigns the peak since the last call to this stage."""
        self.peaks[name] = max(self.peaks[name], peak_memory(self.device))
        reset_peak(self.device)

    def watch(self, name: str, owner: Any, function: str = "forward") -> None:
        """Counts calls of `owner.function` for the stage from now on."""
        original: Callable = getattr(owner, function)

        def watched(*arguments: Any, **keywords: Any) -> Any:
            with self.stage(name):
                return original(*arguments, **keywords)

        setattr(owner, function, watched)


def synchronise(device: torch.device) -> None:
    """Waits until the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def matmul_rate(device: torch.device, dtype: torch.dtype, clock: Clock = time.perf_counter) -> float:
    """Operations per second of a large matrix product, the best of some."""
    size = 1536 if device.type == "cpu" else 8192
    a, b = torch.randn(2, size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(8):
        synchronise(device)
        started = clock()
        torch.mm(a, b)
        synchronise(device)
        best = min(best, clock() - started)
    return 2 * size**3 / best
