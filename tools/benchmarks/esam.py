"""Time by stage and peak memory of E-SAM, without the time of SAM itself, which is simulated.

The budget: MMG + EMR + USR together at most 2 s on 2 cores and 3 GB at 1500 x 1000 with 32 x 32 and 64 x 64 points.
Example: python tools/benchmark.py esam --height 1000 --width 1500 --threads 2
"""

import argparse
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from simulated_sam import SimulatedImage, SimulatedSAM

from entitysam.data.synthetic.render import render_video
from entitysam.esam.prompting import PromptingConfig
from entitysam.esam.segmenter import ESAM, Trace

# Stage of the trace -> the module it belongs to; "draw" makes the map at the resolution of the image.
MODULE = {
    "encode": "SAM",
    "prompt 32": "MMG",
    "superpixels": "MMG",
    "MMG": "MMG",
    "prompt 64": "MMG",
    "gallery": "MMG",
    "EMR": "EMR",
    "USR": "USR",
    "prompt again": "USR",
    "draw": "draw",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--height", type=int, default=1000)
    parser.add_argument("--width", type=int, default=1500)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of torch")
    parser.add_argument("--device", default="cpu", help="where masks are compared and drawn: cpu or cuda")
    parser.add_argument("--points-per-batch", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3, help="the fastest run counts")
    parser.add_argument("--seed", type=int, default=0)


def run(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    frames, ids, _ = render_video(arguments.seed, 1, (arguments.height, arguments.width))
    sam = _TimedSAM(SimulatedSAM(ids[0], arguments.seed, device=arguments.device))
    method = ESAM(sam, prompting=PromptingConfig(points_per_batch=arguments.points_per_batch))
    before = _peak_mb()
    columns = {}
    for name, clock in (("wall s", time.perf_counter), ("CPU s", time.process_time)):
        runs = [_stages(method, sam, frames[0], clock) for _ in range(arguments.repeat)]
        columns[name] = min(runs, key=lambda stages: sum(stages.values()))
    print("| module | stage | " + " | ".join(columns) + " |\n" + "| --- " * (2 + len(columns)) + "|")
    for stage, module in MODULE.items():
        values = " | ".join(f"{column.get(stage, 0.0):.2f}" for column in columns.values())
        print(f"| {module} | {stage} | {values} |")
    for module in ("MMG", "EMR", "USR"):
        totals = (sum(v for k, v in column.items() if MODULE[k] == module) for column in columns.values())
        print(f"| **{module}** | all | " + " | ".join(f"{total:.2f}" for total in totals) + " |")
    totals = (sum(v for k, v in column.items() if MODULE[k] in ("MMG", "EMR", "USR")) for column in columns.values())
    print("| **MMG + EMR + USR** | | " + " | ".join(f"{total:.2f}" for total in totals) + " |")
    print(f"peak memory: {_peak_mb():.0f} MB, of which {before:.0f} MB before the first image")


def _stages(method: ESAM, sam: "_TimedSAM", image: np.ndarray, clock: Callable[[], float]) -> dict[str, float]:
    """Seconds by stage, those of the simulated decoder taken off."""
    sam.clock, sam.calls = clock, []
    trace = Trace(keep_steps=False, clock=clock)
    method.segment(image, trace)
    settings = method.prompting
    spent = dict.fromkeys(trace.seconds, 0.0)
    coarse, dense = settings.points_per_side**2, settings.gallery_points_per_side**2
    done = 0
    for points, seconds in sam.calls:
        stage = "prompt 32" if done < coarse else "prompt 64" if done < coarse + dense else "prompt again"
        spent[stage] += seconds
        done += points
    return {stage: seconds - spent[stage] for stage, seconds in trace.seconds.items()}


class _TimedSAM:
    """Hands on to the simulated SAM, encoded once, and notes how long each answer took."""

    def __init__(self, sam: SimulatedSAM):
        self._sam = sam
        self._encoded: SimulatedImage | None = None
        self.clock: Callable[[], float] = time.perf_counter
        self.calls: list[tuple[int, float]] = []

    def encode(self, image: Tensor) -> "_TimedSAM":
        if self._encoded is None:
            self._encoded = self._sam.encode(image)
            self.features, self.mask_size = self._encoded.features, self._encoded.mask_size
        return self

    def predict(self, points: Tensor) -> tuple[Tensor, Tensor]:
        assert self._encoded is not None
        start = self.clock()
        answer = self._encoded.predict(points)
        if answer[0].device.type == "cuda":
            torch.cuda.synchronize()
        self.calls.append((len(points), self.clock() - start))
        return answer


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
