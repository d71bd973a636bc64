"""Times VEQ and STQ^EN on generated videos, PNG decoding included, beside the published scripts where given.

Example: python tools/benchmark.py metrics --videos 4 --frames 10 --reference path/to/published/checkout
Every measurement is a fresh process on one core; loading Python modules is left out of the time.
"""

import argparse
import json
import os
import re
import runpy
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from entitysam.ops import ids_to_rgb

METRICS = {"veq": "VEQ", "stq_en": "STQ^EN"}
REFERENCE = {"veq": "eval_veq.py", "stq_en": "eval_stq_vspw_clsag.py"}
TARGETS = {"veq": 20, "stq_en": 8}


@dataclass(frozen=True)
class Measurement:
    """Wall and CPU time in seconds and peak memory in MiB, all of the largest process; the metric in percent."""

    wall: float
    cpu: float
    memory: float
    value: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--videos", type=int, default=30)
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--height", type=int, default=720)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--entities", type=int, default=20)
    parser.add_argument("--reference", type=Path, help="checkout of the published EntitySAM; its scripts run beside")


def run(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        generate(root, arguments.videos, arguments.frames, (arguments.height, arguments.width), arguments.entities)
        shape = (
            f"{arguments.frames} frames of {arguments.width} x {arguments.height} with {arguments.entities} entities"
        )
        print(f"{arguments.videos} videos, {shape}\n")
        print("| metric | program | processes | videos | wall s | CPU s | peak MiB | value | CPU ratio |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
        for name in METRICS:
            reference = None
            if arguments.reference:
                reference = measure(1, run_reference, root, name, arguments.reference)
                show(name, "published script", 1, arguments.videos, reference)
            for processes, videos in ((1, arguments.videos), (2, arguments.videos), (1, (arguments.videos + 1) // 2)):
                ours = measure(processes, run_ours, root, name, videos)
                compared = reference if videos == arguments.videos else None
                show(name, "entitysam", processes, videos, ours, compared)


def show(
    name: str, program: str, processes: int, videos: int, ours: Measurement, reference: Measurement | None = None
) -> None:
    ratio = f"{reference.cpu / ours.cpu:.1f} (target {TARGETS[name]})" if reference else ""
    cells = (
        METRICS[name],
        program,
        processes,
        videos,
        f"{ours.wall:.1f}",
        f"{ours.cpu:.1f}",
        f"{ours.memory:.0f}",
        f"{ours.value:.4f}",
    )
    print("|", " | ".join(map(str, (*cells, ratio))), "|", flush=True)


def measure(processes: int, work: Callable[..., Any], *arguments: Any) -> Measurement:
    """Runs `work(share, shares, *arguments)` in fresh processes, one core each; the slowest decides."""
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        parts = [pool.submit(_on_one_core, work, share, processes, *arguments) for share in range(processes)]
        results = [part.result() for part in parts]
    value = results[0][-1]
    for *_, other in results[1:]:
        value.merge(other)
    if not isinstance(value, float):
        value = value.scale * next(iter(value.compute().values()))
    return Measurement(*(max(column) for column in zip(*(numbers for *numbers, _ in results))), value)


def _on_one_core(work: Callable[..., Any], share: int, shares: int, *arguments: Any) -> tuple[float, float, float, Any]:
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[share % len(cores)]})
    cv2.setNumThreads(1)
    (wall, cpu), result = work(share, shares, *arguments)
    return time.perf_counter() - wall, time.process_time() - cpu, peak_memory(), result


def peak_memory() -> float:
    """MiB. Not `getrusage`, whose maximum a process inherits from its parent."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def now() -> tuple[float, float]:
    """Wall and CPU clock in seconds."""
    return time.perf_counter(), time.process_time()


def run_ours(share: int, shares: int, root: Path, name: str, videos: int) -> tuple[tuple[float, float], Any]:
    """Evaluates every `shares`-th video; the time when it began, and the evaluator."""
    from entitysam.evaluation import PanopticSequence, PanopticVideo, build_evaluators, read_panoptic_png

    started = now()
    sequences = []
    for listing, maps in (("gt.json", "panomasksRGB"), ("pred.json", "pan_pred")):
        annotations = {v["video_id"]: v["annotations"] for v in json.loads((root / listing).read_text())["annotations"]}
        sequences.append((annotations, root / maps))
    evaluator = build_evaluators([{"name": name}])[name]
    for video_id in sorted(sequences[0][0])[:videos][share::shares]:
        sequences = []
        for annotations, folder in sequences:
            frames = annotations[video_id]
            files = [folder / video_id / frame["file_name"] for frame in sequences[0][0][video_id]]
            segments = [frame["segments_info"] for frame in frames]
            sequences.append(PanopticSequence(segments, lambda frame, files=files: read_panoptic_png(files[frame])))
        evaluator.update(PanopticVideo(video_id, *sequences))
    return started, evaluator


def run_reference(share: int, shares: int, root: Path, name: str, checkout: Path) -> tuple[tuple[float, float], float]:
    """Runs a published script as a user would; the time when it began, and the metric in percent."""
    script = checkout.resolve() / "eval" / "metric" / REFERENCE[name]
    sys.path.insert(0, str(script.parent))
    paths = {"submit_dir": root, "truth_dir": root / "panomasksRGB", "pan_gt_json_file": root / "gt.json"}
    sys.argv = [script.name, *(word for key, value in paths.items() for word in (f"--{key}", str(value)))]
    output, silent = sys.stdout, open(os.devnull, "w")  # noqa: SIM115
    sys.stdout = sys.stderr = silent
    started = now()
    try:
        runpy.run_path(str(script), run_name="__main__")
    finally:
        sys.stdout = output
    if name == "veq":
        written = (root / "vpq-final-agnostic.txt").read_text()
        return started, float(re.search(r"vpq_all:(\S+)", written)[1])  # type: ignore[index]
    written = next(root.glob("eval_results_*.txt")).read_text()
    return started, 100 * float(re.search(r"STQ : (\S+)", written)[1])  # type: ignore[index]


def generate(root: Path, videos: int, frames: int, size: tuple[int, int], entities: int) -> None:
    """Writes ground truth and prediction in VIPSeg's layout: drifting wobbly blobs over a two-part background."""
    listings: dict[str, list[Any]] = {"gt": [], "pred": []}
    for index in range(videos):
        video_id, rng = f"video_{index:03d}", np.random.default_rng(index)
        scene = Scene(rng, size, entities)
        annotations: dict[str, list[Any]] = {name: [] for name in listings}
        for t in range(frames):
            for name, maps, jitter in (("gt", "panomasksRGB", 0.0), ("pred", "pan_pred", 6.0)):
                ids = scene.draw(t, jitter)
                file = root / maps / video_id / f"{t:08d}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(ids_to_rgb(ids)).save(file)  # by Pillow, as the files of the benchmark
                annotations[name].append({"file_name": file.name, "segments_info": segments_info(ids)})
        for name, listing in listings.items():
            listing.append({"video_id": video_id, "annotations": annotations[name]})
    names = [f"{t:08d}.png" for t in range(frames)]
    images = [{"video_id": v["video_id"], "images": [{"file_name": n} for n in names]} for v in listings["gt"]]
    categories = [{"id": 1, "isthing": 1, "name": "entity"}]
    (root / "pred.json").write_text(json.dumps({"annotations": listings["pred"]}))
    (root / "gt.json").write_text(
        json.dumps({"videos": images, "categories": categories, "annotations": listings["gt"]})
    )


def segments_info(ids: np.ndarray) -> list[dict[str, int]]:
    """The JSON entries of a map [H, W], VOID left out."""
    values, areas = np.unique(ids[ids > 0], return_counts=True)
    return [{"id": int(v), "category_id": 1, "iscrowd": 0, "area": int(a)} for v, a in zip(values, areas)]


class Scene:
    """Moving closed curves of random harmonics, painted over each other."""

    def __init__(self, rng: np.random.Generator, size: tuple[int, int], entities: int) -> None:
        self.rng, self.size = rng, size
        self.ids = rng.choice(2**24 - 1, entities, replace=False) + 1
        self.centre = rng.uniform(0, 1, (entities, 2)) * size[::-1]
        self.speed = rng.uniform(-8, 8, (entities, 2))
        self.radius = rng.uniform(0.06, 0.2, entities) * min(size)
        self.wobble = rng.uniform(-0.15, 0.15, (entities, 6))

    def draw(self, t: int, jitter: float) -> np.ndarray:
        """int32 [H, W] ids at time t, outlines displaced by some `jitter` pixels; the left margin is VOID."""
        height, width = self.size
        ids = np.full(self.size, self.ids[0], np.int32)
        ids[:, : width // 50] = 0
        ids[height // 2 :, width // 50 :] = self.ids[1]
        angle = np.linspace(0, 2 * np.pi, 90, endpoint=False)
        for n in range(2, len(self.ids)):
            harmonics = sum(w * np.sin((k + 2) * angle + t / 5) for k, w in enumerate(self.wobble[n]))
            radius = self.radius[n] * (1 + harmonics)
            offset = self.rng.normal(0, jitter, 2) if jitter else 0
            centre = (self.centre[n] + t * self.speed[n]) % (width, height) + offset
            curve = centre + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
            cv2.fillPoly(ids, [curve.astype(np.int32)], int(self.ids[n]))
        return ids
