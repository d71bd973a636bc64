"""Small collections of videos, and jobs over them with a small random network."""

from pathlib import Path

import numpy as np
from PIL import Image

from entitysam.io.writers.video import VideoWriter

FRAMES, SIZE = 3, (48, 64)
MODEL = ["--model", "tiny_scratch", "--weights", "random", "--image-size", "64", "--device", "cpu", "--quiet"]
MODEL += ["--threshold", "0", "--warmup-frames", "0", "model.num_entities=5", "inference.overlap_threshold=0"]


def pictures(seed: int, count: int = FRAMES) -> np.ndarray:
    """uint8 [count, 48, 64, 3]: a square moves over noise."""
    noise = np.random.default_rng(seed).integers(60, 120, (*SIZE, 3), dtype=np.uint8)
    frames = np.repeat(noise[None], count, axis=0)
    for index, frame in enumerate(frames):
        frame[10 + seed : 34 + seed, 6 + 7 * index : 26 + 7 * index] = (230, 40 * (seed % 5), 40)
    return frames


def write_video(path: Path, seed: int, count: int = FRAMES) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, SIZE[1], SIZE[0], fps=10) as writer:
        for index, frame in enumerate(pictures(seed, count)):
            writer.add(frame, index / 10)
    return path


def write_images(folder: Path, seed: int) -> Path:
    folder.mkdir(parents=True)
    for index, frame in enumerate(pictures(seed)):
        Image.fromarray(frame).save(folder / f"{index:03d}.png")
    return folder
