"""Memory of this process: current, and the peak since the last reset."""

import contextlib
import ctypes
import gc
import resource
import sys
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def held_memory(device: torch.device) -> float:
    """MiB in use now: of the GPU's allocator, or resident once freed memory is given back. Linux or CUDA."""
    gc.collect()
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / 2**20
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    return _status("VmRSS")


def peak_memory(device: torch.device) -> float:
    """MiB: of the GPU's allocator, or resident so far. On Linux a child inherits the figure of getrusage, but not that of /proc."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if STATUS.exists():
        return _status("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def reset_peak(device: torch.device) -> None:
    """Resets `peak_memory` to the current value, on Linux and CUDA."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif CLEAR.exists():
        with contextlib.suppress(OSError):  # a sandbox may forbid it; the peak then is that of the whole process
            CLEAR.write_text("5")


def _status(key: str) -> float:
    return int(STATUS.read_text().split(f"{key}:")[1].split()[0]) / 1024
