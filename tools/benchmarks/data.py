"""Clips per second of the training data: reading, augmenting, and the loader with several numbers of workers.

Example: python tools/benchmark.py data --root datasets/synthetic --image-size 256 --num-frames 8 --workers 0 1 2
"""

import argparse
import time
from pathlib import Path

import cv2
import numpy as np

from entitysam.data.training.coco import CocoPanoptic
from entitysam.data.training.loader import build_loader
from entitysam.data.training.pseudo_video import PseudoVideo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", type=Path, default=Path("datasets/synthetic"), help="in COCO panoptic's layout")
    parser.add_argument("--split", default="train2017")
    parser.add_argument("--image-size", type=int, default=1024)
    parser.add_argument("--num-frames", type=int, default=8)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--clips", type=int, default=40, help="timed clips, after a warm-up of a quarter as many")


def run(arguments: argparse.Namespace) -> None:
    cv2.setNumThreads(0)  # as in the loader's workers
    dataset = CocoPanoptic(arguments.root, arguments.split)
    mapper = PseudoVideo(arguments.num_frames, arguments.image_size)
    print(f"{arguments.root}/{arguments.split}: {arguments.num_frames} frames of {arguments.image_size}")
    for name, milliseconds in stages(dataset, mapper, arguments.clips).items():
        print(f"{name:<12} {milliseconds:8.1f} ms/clip")
    for workers in arguments.workers:
        rate = clips_per_second(dataset, mapper, workers, arguments.clips)
        print(f"{workers} workers   {rate:8.2f} clips/s   {rate * arguments.num_frames:8.1f} frames/s")


def stages(dataset: CocoPanoptic, mapper: PseudoVideo, clips: int) -> dict[str, float]:
    """Milliseconds per clip of reading and of augmenting, in this process."""
    spent = {"read": 0.0, "augment": 0.0}
    for k in range(clips):
        started = time.perf_counter()
        sample = dataset.load(k % len(dataset))
        loaded = time.perf_counter()
        mapper(sample, np.random.default_rng(k))
        spent["read"] += loaded - started
        spent["augment"] += time.perf_counter() - loaded
    return {name: 1000 * seconds / clips for name, seconds in spent.items()}


def clips_per_second(dataset: CocoPanoptic, mapper: PseudoVideo, workers: int, clips: int) -> float:
    """Throughput of the loader once it runs."""
    loader = build_loader(dataset, mapper, seed=0, num_workers=workers)
    for _ in range(max(clips // 4, 2 * workers)):
        next(loader)
    started = time.perf_counter()
    for _ in range(clips):
        next(loader)
    return clips / (time.perf_counter() - started)
