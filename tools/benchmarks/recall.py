"""Which annotated entities a network could give at all, whatever is chosen among its queries, and what the choice is made by.

Frames are looked at one by one, each as the first of a video. Example:
python tools/benchmark.py recall --weights checkpoints/entitysam_tiny.safetensors --data datasets/synthetic/VIPSeg_720P
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from entitysam.cli.shared.models import open_model
from entitysam.data.evaluation.vipseg import VIPSegVideos
from entitysam.data.images import read_image
from entitysam.evaluation.panoptic_png import read_panoptic_png
from entitysam.structures import Video

SMALL = 0.02  # of the picture


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", required=True, help="of an EntitySAM, with its config")
    parser.add_argument("--data", type=Path, default=Path("datasets/synthetic/VIPSeg_720P"), help="in VIPSeg's layout")
    parser.add_argument("--frames", type=int, default=3, help="per video, spread evenly")
    parser.add_argument("--device", default="cpu")


def run(arguments: argparse.Namespace) -> None:
    model = open_model(arguments.weights, None, arguments.device, {}).model.eval()
    found: dict[str, list[bool]] = {"large": [], "small": []}
    scores = []
    for video in VIPSegVideos(arguments.data).videos:
        for frame, ids in spread(video, arguments.frames):
            with torch.inference_mode():
                output, _ = model.step(frame, model.initial_state())
            scores.append(output.score.float().cpu())
            for share, iou in best_overlaps(output.mask_logits.float().cpu(), ids):
                found["small" if share < SMALL else "large"].append(iou > 0.5)
    every = found["large"] + found["small"]
    print(f"entities with a query of IoU > 0.5: {sum(every)} of {len(every)} ({np.mean(every):.0%})")
    for name, hits in found.items():
        side = "at least" if name == "large" else "less than"
        print(f"  {side} {SMALL:.0%} of the picture: {sum(hits)} of {len(hits)} ({np.mean(hits):.0%})")
    deciles = torch.cat(scores).quantile(torch.tensor([0.1, 0.5, 0.9])).tolist()
    print("scores of the queries, 10 %, 50 %, 90 %: " + ", ".join(f"{value:.3f}" for value in deciles))


def spread(video: Video, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Some frames of a video, uint8 [H, W, 3], and their annotated ids, int [H, W], 0 = void."""
    for index in np.linspace(0, len(video) - 1, min(count, len(video))).round().astype(int):
        yield read_image(video.frame_files[index]), read_panoptic_png(video.annotation["mask_files"][index])


def best_overlaps(mask_logits: Tensor, ids: np.ndarray) -> Iterator[tuple[float, float]]:
    """Per annotated entity: its share of the picture, and the IoU of the query [Q, h, w] that is most like it."""
    masks = F.interpolate(mask_logits[:, None], size=ids.shape, mode="bilinear")[:, 0].flatten(1) > 0
    flat = torch.from_numpy(ids.astype(np.int64)).flatten()
    for entity in flat.unique().tolist():
        if entity:
            own = flat == entity
            overlap = (masks & own).sum(1) / (masks | own).sum(1)
            yield float(own.float().mean()), float(overlap.max())
