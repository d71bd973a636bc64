"""Speed of the levels of `--fast` on a clip, and of an exported model beside them; or operations of the levels, counted.

Examples:
  python tools/benchmark.py levels clip.mp4 --frames 48 --exported tiny_onnx tiny_int8
  python tools/benchmark.py levels --operations vits vitl --alive 20
On a clip: processor time of `encode` and `propagate` per frame, all variants in turns, frame by frame; with several threads it
counts all of them. Operations: of one frame with a full bank, relative to level 0; nothing is computed.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from entitysam.engine.build import build_model, open_model
from entitysam.export.runtime import OnnxModel
from entitysam.inference.segmenter import VideoSegmenter
from entitysam.io.readers.source import open_frames
from entitysam.models.dual_encoder import ImageFeatures
from entitysam.registry import ConfigError
from entitysam.speed import EXACT, LEVELS, Speed

SIZES = (256, 512, 1024)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("clip", nargs="?", help="video or folder of images")
    parser.add_argument("--model", default="tiny", help="a name or a weight file (default: tiny)")
    parser.add_argument("--image-size", type=int, metavar="S", help="side of the network's input")
    parser.add_argument("--frames", type=int, default=48, help="of the clip (default: 48)")
    parser.add_argument("--exported", nargs="+", default=[], metavar="FOLDER", help="of `entitysam export --to onnx`")
    parser.add_argument("--runtimes", nargs="+", default=["cpu"], metavar="DEVICE",
                        help="that run the exported models: providers of onnxruntime cpu, cuda, tensorrt, or openvino (default: cpu)")  # fmt: skip
    parser.add_argument("--operations", nargs="+", metavar="MODEL", help="count operations of these models instead")
    parser.add_argument("--alive", type=int, default=20, help="entities that are not dormant (default: 20)")


def run(arguments: argparse.Namespace) -> None:
    if arguments.operations:
        show_operations(arguments.operations, arguments.alive)
    elif arguments.clip:
        show_speed(arguments)
    else:
        raise ConfigError("levels: a clip, or --operations MODEL")


def show_speed(arguments: argparse.Namespace) -> None:
    """Prints milliseconds per frame of each variant and its ratio to level 0."""
    overrides = {} if arguments.image_size is None else {"image_size": arguments.image_size}
    network = open_model(arguments.model, device="cpu", overrides=overrides).model
    variants = {f"level {level}": VideoSegmenter(network, fast=level).model for level in LEVELS}
    for folder in arguments.exported:
        for device in arguments.runtimes:
            variants[f"{folder}, {device}"] = OnnxModel(Path(folder), device, torch.get_num_threads())
    with open_frames(arguments.clip, max_frames=arguments.frames) as frames:
        milliseconds, agreement = take_turns(variants, frames)
    print("| | ms per frame | ratio to level 0 | masks that agree with it, IoU |\n| --- | ---: | ---: | ---: |")
    exact = milliseconds["level 0"]
    for name, value in milliseconds.items():
        print(f"| {name} | {value:.1f} | {exact / value:.2f} | {agreement[name]:.4f} |")


def take_turns(variants: dict[str, Any], frames: Any) -> tuple[dict[str, float], dict[str, float]]:
    """Every variant does a frame, then the next frame comes.

    Args:
        variants: name -> `FrameModel`. The first is the one that the others are compared with.
        frames: uint8 [H, W, 3].

    Returns:
        milliseconds of processor time per frame of each; and the IoU of each variant's masks with those of the first, over all
        pixels of the clip and the queries that the first shows (score at least 0.05).
    """
    states = {name: variant.initial_state() for name, variant in variants.items()}
    seconds, count = dict.fromkeys(variants, 0.0), 0
    common, united = dict.fromkeys(variants, 0.0), dict.fromkeys(variants, 0.0)
    for frame in frames:
        count += 1
        expected = None
        for name, variant in variants.items():
            image = variant.prepare(frame)[None]
            started = time.process_time()
            with torch.inference_mode():
                output, states[name] = variant.propagate(variant.encode(image)[0], states[name])
            seconds[name] += time.process_time() - started
            mask = (output.mask_logits > 0) & (output.score >= 0.05)[:, None, None]
            if expected is None:
                expected, shown = mask, output.score >= 0.05
            common[name] += float((mask & expected)[shown].sum())
            united[name] += float((mask | expected)[shown].sum())
    per_frame = {name: 1000 * value / count for name, value in seconds.items()}
    return per_frame, {name: common[name] / max(united[name], 1) for name in variants}


def show_operations(models: list[str], alive: int) -> None:
    """Prints the operations of level 1, and of its halves, relative to level 0."""
    rows = {"level 1": LEVELS[1], "pruning alone": Speed(prune=8), "pooling alone": Speed(pool=2)}
    print("| | " + " | ".join(f"{size} (exact, TFLOP)" for size in SIZES) + " |\n| --- |" + " ---: |" * len(SIZES))
    for model in models:
        networks = [build_model(model, image_size=size).to("meta") for size in SIZES]
        exact = [operations(network, EXACT, alive) for network in networks]
        for row, speed in rows.items():
            shares = [operations(network, speed, alive) / whole for network, whole in zip(networks, exact)]
            cells = [f"{share:.2f} ({whole / 1e12:.2f})" for share, whole in zip(shares, exact)]
            print(f"| {model}, {row} | " + " | ".join(cells) + " |")


def operations(network: Any, speed: Speed, alive: int) -> int:
    """Operations of a frame with a full bank; a multiplication and an addition are two.

    Args:
        network: an `EntitySAM` on the device "meta".
        speed: what is left out.
        alive: entities that are not dormant.
    """
    active = torch.arange(min(alive, network.num_entities), device="meta") if speed.prune else None
    image = torch.empty(1, 3, network.image_size, network.image_size, device="meta")
    points = torch.empty(network.num_entities, 2, device="meta")
    with torch.no_grad():
        features: ImageFeatures = network.encode(image)[0]
        masks = torch.empty(network.num_entities, *features.stride4.shape[-2:], device="meta")
        memories = network.memory.write(features.cells, masks, ()) * network.memory.num_memories
        with FlopCounterMode(display=False) as counter:
            features = network.encode(image)[0]
            network._decode(network.memory.read(features.cells, memories, active, speed.pool), features, points)
            network.memory.write(features.cells, masks, memories, active)
    return counter.get_total_flops()
