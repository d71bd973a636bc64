"""Time per stage and peak memory of E-SAM. SAM is simulated and its time is subtracted.

Target: MMG + EMR + USR take at most 2 s on 2 cores and 3 GB for 1500 x 1000 pixels with 32 x 32 and 64 x 64 points.
Example: python tools/benchmark.py esam --height 1000 --width 1500 --threads 2
"""

import argparse
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from simulated_sam import SimulatedImage, SimulatedSAM

from benchmarks._stages import Clock, Stages, synchronise
from entitysam.data.synthetic.render import render_video
from entitysam.esam import segmenter
from entitysam.esam.prompting import PromptedMasks, PromptingConfig
from entitysam.esam.protocol import PromptableImage
from entitysam.esam.segmenter import ESAM

# Stage -> module; "draw" renders the map at the resolution of the image.
MODULE = {
    "prompt 32": "MMG",
    "superpixels": "MMG",
    "MMG": "MMG",
    "prompt 64": "MMG",
    "gallery": "MMG",
    "EMR": "EMR",
    "USR": "USR",
    "draw": "draw",
}
# Functions of `esam.segmenter` that make up a stage.
FUNCTIONS = {
    "compute_superpixels": "superpixels",
    "generate_masks": "MMG",
    "build_gallery": "gallery",
    "refine": "EMR",
    "uncovered_regions": "USR",
    "prompt_points": "USR",
    "recover": "USR",
    "entity_map": "draw",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--height", type=int, default=1000)
    parser.add_argument("--width", type=int, default=1500)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of torch")
    parser.add_argument("--device", default="cpu", help="device of the masks: cpu or cuda")
    parser.add_argument("--points-per-batch", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3, help="runs, of which the fastest counts")
    parser.add_argument("--seed", type=int, default=0)


def run(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    frames, ids, _ = render_video(arguments.seed, 1, (arguments.height, arguments.width))
    sam = _TimedSAM(SimulatedSAM(ids[0], arguments.seed, device=arguments.device))
    method = _TimedESAM(sam, prompting=PromptingConfig(points_per_batch=arguments.points_per_batch))
    for function, stage in FUNCTIONS.items():
        method.watch(segmenter, function, stage)
    before = _peak_mb()
    columns = {}
    for name, clock in (("wall s", time.perf_counter), ("CPU s", time.process_time)):
        runs = [method.measure(frames[0], clock) for _ in range(arguments.repeat)]
        columns[name] = min(runs, key=lambda seconds: sum(seconds.values()))
    print("| module | stage | " + " | ".join(columns) + " |\n" + "| --- " * (2 + len(columns)) + "|")
    for stage, module in MODULE.items():
        values = " | ".join(f"{column.get(stage, 0.0):.2f}" for column in columns.values())
        print(f"| {module} | {stage} | {values} |")
    for modules in (("MMG",), ("EMR",), ("USR",), ("MMG", "EMR", "USR")):
        totals = (sum(v for k, v in column.items() if MODULE[k] in modules) for column in columns.values())
        print(f"| **{' + '.join(modules)}** | all | " + " | ".join(f"{total:.2f}" for total in totals) + " |")
    print(f"peak memory: {_peak_mb():.0f} MB, of which {before:.0f} MB before the first image")


class _TimedESAM(ESAM):
    """E-SAM whose grids, and watched functions, are timed without the time of the simulated SAM."""

    def __init__(self, sam: "_TimedSAM", **settings: PromptingConfig) -> None:
        super().__init__(sam, **settings)  # type: ignore[arg-type]
        self._sam = sam
        self._stages = Stages(sam.device)

    def watch(self, owner: object, function: str, stage: str) -> None:
        original = getattr(owner, function)

        def timed(*values: object, **options: object) -> object:
            with self._stages.stage(stage):
                return original(*values, **options)

        setattr(owner, function, timed)

    def measure(self, image: np.ndarray, clock: Clock) -> dict[str, float]:
        """Seconds per stage of one image."""
        self._stages = Stages(self._sam.device, clock)
        self._sam.clock = clock
        self.segment(image)
        return dict(self._stages.seconds)

    def prompt_grid(self, encoded: PromptableImage, size: tuple[int, int], dense: bool) -> PromptedMasks:
        stage, before = "prompt 64" if dense else "prompt 32", self._sam.seconds
        with self._stages.stage(stage):
            prompted = super().prompt_grid(encoded, size, dense)
        self._stages.seconds[stage] -= self._sam.seconds - before
        return prompted


class _TimedSAM:
    """The simulated SAM with its image encoded once; adds up the seconds that its answers take."""

    def __init__(self, sam: SimulatedSAM) -> None:
        self._sam = sam
        self._encoded: SimulatedImage | None = None
        self.device = sam.device
        self.clock: Clock = time.perf_counter
        self.seconds = 0.0

    def encode(self, image: Tensor) -> "_TimedSAM":
        if self._encoded is None:
            self._encoded = self._sam.encode(image)
            self.features, self.mask_size = self._encoded.features, self._encoded.mask_size
        return self

    def predict(self, points: Tensor) -> tuple[Tensor, Tensor]:
        assert self._encoded is not None
        start = self.clock()
        answer = self._encoded.predict(points)
        synchronise(self.device)
        self.seconds += self.clock() - start
        return answer


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
