"""Bulk jobs: overhead beside `segment` in a loop, efficiency of two workers, and the driver's bookkeeping.

Videos are generated. The overhead is measured in one process, video by video in turns, by its CPU time: `segment` with an open
network, and a worker of a bulk job that writes the same result folder besides its Parquet file. The efficiency is the time of
one worker over twice that of two, from the first finished video to the last; it needs two free cores.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--videos", type=int, default=8, help="generated videos (default: 8)")
    parser.add_argument("--frames", type=int, default=16, help="of each (default: 16)")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--only", choices=("overhead", "efficiency"))
    parser.add_argument("--generate", type=Path, metavar="FOLDER", help="only write the videos into a new folder")
    parser.add_argument("--bookkeeping", type=int, metavar="N", help="only the driver's part of a job over N videos")


def run(arguments: argparse.Namespace) -> None:
    if arguments.generate:
        generate(arguments.generate, arguments.videos, arguments.frames)
        return
    with tempfile.TemporaryDirectory() as folder:
        if arguments.bookkeeping:
            program = Path(__file__).with_name("_bookkeeping.py")
            subprocess.run([sys.executable, str(program), folder, str(arguments.bookkeeping)], check=True)
            return
        measure(arguments, Path(folder))


def measure(arguments: argparse.Namespace, folder: Path) -> None:
    from entitysam.bulk.settings import Clip, Settings

    clips = [Clip(path.stem, str(path)) for path in generate(folder / "videos", arguments.videos, arguments.frames)]
    settings = Settings(model=arguments.model, device="cpu")
    if arguments.only != "efficiency":
        show("overhead", overhead(settings, folder, clips))
    if arguments.only != "overhead":
        show("efficiency", efficiency(settings, folder, clips))


def generate(folder: Path, count: int, frames: int) -> list[Path]:
    """`count` videos of moving shapes, 320 x 240."""
    import numpy as np

    from entitysam.data.synthetic.random_scene import random_scene
    from entitysam.data.synthetic.scene import render_frame
    from entitysam.io.writers.video import VideoWriter

    folder.mkdir(parents=True)
    paths = []
    for index in range(count):
        rng = np.random.default_rng(index)
        scene = random_scene(rng, frames, (240, 320))
        paths.append(folder / f"clip-{index:04d}.mp4")
        with VideoWriter(paths[-1], 320, 240, fps=25) as writer:
            for number in range(frames):
                writer.add(render_frame(scene, number, (240, 320), rng)[0], number / 25)
    return paths


def overhead(settings, folder: Path, clips) -> dict[str, float]:
    from entitysam.bulk.tables import ENTITIES, FOLDERS, PREVIEWS
    from entitysam.bulk.worker import VideoWorker
    from entitysam.cli.shared.results import Job, run_job
    from entitysam.engine.build import open_model
    from entitysam.io.readers.source import open_frames

    for name in (ENTITIES, PREVIEWS, FOLDERS):
        (folder / "turns" / name).mkdir(parents=True)
    worker = VideoWorker(replace(settings, overlays=True), folder / "turns")
    opened = open_model(settings.model, device="cpu", kind="entity_sam")
    seconds = {"segment": 0.0, "bulk": 0.0}

    def segment(clip, out):
        with open_frames(clip.path) as frames:
            job = Job(frames, lambda: open_frames(clip.path), {"files": clip.path}, out, clip.id, quiet=True)
            run_job(job, opened, {})

    for place, clip in enumerate([clips[0], *clips]):  # the first turn of each warms up and does not count
        out = folder / "segmented" / f"{place:04d}"
        out.mkdir(parents=True)
        turns = {"bulk": lambda clip=clip: worker.run(clip), "segment": lambda clip=clip, out=out: segment(clip, out)}
        for name in sorted(turns, reverse=bool(place % 2)):
            start = time.process_time()
            turns[name]()
            seconds[name] += (time.process_time() - start) * (place > 0)
    return {**seconds, "overhead": seconds["bulk"] / seconds["segment"] - 1}


def efficiency(settings, folder: Path, clips) -> dict[str, float]:
    from entitysam.bulk.engines.local import run_local
    from entitysam.bulk.settings import Outcome
    from entitysam.bulk.tables import ENTITIES, PREVIEWS

    rates = {}
    for workers in (1, 2):
        out = folder / f"workers-{workers}"
        for name in (ENTITIES, PREVIEWS, "temporary"):
            (out / name).mkdir(parents=True)
        times, frames = [], []
        for event in run_local(settings, out, iter(clips), workers, out / "temporary"):
            if isinstance(event, Outcome):
                times.append(time.perf_counter())
                frames.append(event.frames)
        rates[workers] = sum(frames[workers:]) / (times[-1] - times[workers - 1])
    return {"one": rates[1], "two": rates[2], "efficiency": rates[2] / rates[1] / 2}


def show(name: str, values: dict[str, float]) -> None:
    print(json.dumps({"measured": name, **{key: round(value, 4) for key, value in values.items()}}), flush=True)
