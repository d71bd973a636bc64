"""Clips of one frame, one by one and together: milliseconds per clip of forward, criterion and backward.

What `train.clips_per_forward` gains. Example: python tools/benchmark.py together --model tiny --image-size 128 --widths 1 4 8
"""

import argparse
from dataclasses import replace

import torch

from benchmarks.model import CLOCKS, describe
from entitysam.config import TrainConfig
from entitysam.engine.build import build_model, pick_device
from entitysam.engine.train.trainer import backward
from entitysam.losses import EntityCriterion
from entitysam.precision import AMP
from entitysam.structures import Clip, Targets

ENTITIES = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="tiny", help="tiny, vits or vitl (default: tiny)")
    parser.add_argument("--image-size", type=int, default=128, metavar="S")
    parser.add_argument("--widths", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="clips per forward pass")
    parser.add_argument("--batch", type=int, default=16, help="clips of a step (default: 16)")
    parser.add_argument("--steps", type=int, default=3, help="timed, after one of warm-up (default: 3)")
    parser.add_argument("--num-points", type=int, default=512, help="criterion.num_points (default: 512)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", choices=AMP, default="fp32")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")


def run(arguments: argparse.Namespace) -> None:
    device = pick_device(arguments.device)
    torch.manual_seed(0)
    model = build_model(arguments.model, image_size=arguments.image_size).to(device).train()
    criterion = EntityCriterion(num_points=arguments.num_points)
    batch = [clip_of(index, arguments.image_size).to(device) for index in range(arguments.batch)]
    scaler = torch.amp.GradScaler(device.type, enabled=False)
    clock = CLOCKS[arguments.clock]
    print(f"{arguments.model} at {arguments.image_size}, {arguments.batch} clips of one frame, {describe(device)}")
    seconds = dict.fromkeys(arguments.widths, 0.0)
    for step in range(1 + arguments.steps):
        for width in arguments.widths:  # in turns: machines are noisy
            started = clock()
            train = replace(TrainConfig(), amp=arguments.dtype, clips_per_forward=width)
            losses, _ = backward(model, criterion, batch, scaler, train, seed=0)
            float(losses["total"])  # waits for the device
            model.zero_grad(set_to_none=True)
            seconds[width] += (clock() - started) if step else 0.0
    first = seconds[arguments.widths[0]]
    for width, spent in seconds.items():
        each = 1e3 * spent / arguments.steps / arguments.batch
        print(f"{width:>3} together   {each:8.1f} ms/clip   {first / spent:5.2f} x")


def clip_of(index: int, size: int) -> Clip:
    """A clip of one frame: noise, and vertical stripes for entities."""
    generator = torch.Generator().manual_seed(index)
    frames = torch.randint(0, 256, (1, 3, size, size), dtype=torch.uint8, generator=generator)
    stripe = torch.arange(size) * ENTITIES // size
    masks = (stripe == torch.arange(ENTITIES)[:, None])[:, None, None].expand(-1, 1, size, -1).contiguous()
    return Clip(frames, Targets(masks, torch.full((ENTITIES,), -1)), f"clip {index}", index)
