"""MASA's tracker: time per frame of Algorithm 1 without the network, and whether state, time or memory grow.

The budget: 300 candidates against 300 tracks under 10 ms a frame on one core; nothing grows over 10,000 frames.
Example: python tools/benchmark.py masa --frames 10000
"""

import argparse
import resource
import time

import numpy as np
import torch

from entitysam.masa.tracker import SETTINGS, Candidates, Tracker, TrackerState, read_setting

SIDE = 40.0  # of a box, pixels
COLUMNS = 20  # things stand on a grid so wide in_fresh_process that no box is a duplicate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--candidates", type=int, default=300, help="candidates, and tracks, of a frame")
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--settings", nargs="+", default=[*SETTINGS, "iou"])
    parser.add_argument("--leave", type=float, default=0.02, help="share of things exchanged for new ones per frame")
    parser.add_argument("--threads", type=int, default=1)


def run(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    print("| setting | known | ms a frame (CPU, median) | first tenth | last tenth | largest state | memory, MB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in arguments.settings:
        print(row(name, arguments), flush=True)


def row(name: str, arguments: argparse.Namespace) -> str:
    """One line of the table: a setting over the whole run."""
    tracker = Tracker(read_setting("tao", "iou") if name == "iou" else SETTINGS[name])
    state, before = TrackerState.initial(), _peak_mb()
    things = _Things(arguments.candidates, arguments.channels)
    seconds, sizes = np.zeros(arguments.frames), np.zeros(arguments.frames, int)
    for frame in range(arguments.frames):
        candidates = things.frame(arguments.leave)
        started = time.process_time()
        _, state = tracker.step(state, candidates, frame)
        seconds[frame] = time.process_time() - started
        sizes[frame] = len(state)
    tenth = max(1, arguments.frames // 10)
    times = [1000 * np.median(part) for part in (seconds, seconds[:tenth], seconds[-tenth:])]
    cells = [f"{np.median(sizes):.0f}", *(f"{value:.2f}" for value in times), str(sizes.max())]
    return f"| {name} | " + " | ".join(cells) + f" | +{_peak_mb() - before:.0f} |"


class _Things:
    """Boxes on a grid with embeddings of their own; some are exchanged for new things on every frame."""

    def __init__(self, count: int, channels: int) -> None:
        self.random = torch.Generator().manual_seed(0)
        self.looks = torch.randn(count, channels, generator=self.random)
        place = torch.arange(count)
        low = 2 * SIDE * torch.stack([place % COLUMNS, place // COLUMNS], 1)
        self.boxes = torch.cat([low, low + SIDE], 1)

    def frame(self, leave: float) -> Candidates:
        count = len(self.looks)
        new = torch.rand(count, generator=self.random) < leave
        self.looks[new] = torch.randn(int(new.sum()), self.looks.shape[1], generator=self.random)
        noise = 0.1 * torch.randn(self.looks.shape, generator=self.random)
        scores = 0.6 + 0.4 * torch.rand(count, generator=self.random)
        return Candidates(self.boxes, scores, self.looks + noise)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
