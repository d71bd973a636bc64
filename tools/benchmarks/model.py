"""Speed and memory of the model, per stage; beside the published implementation where a checkout of it is given.

Example: python tools/benchmark.py model --model vits --image-size 256 --frames 12 --reference path/to/checkout
Frames are timed from normalised image to mask logits and scores, once the memory is full. With --reference the two
implementations take turns, frame by frame, on the same weights and frames, and their outputs are compared. On a GPU, or with
--variants, a second table has a row per precision, compiled, and per level of speed, one after the other.
"""

import argparse
import platform
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor

from benchmarks._implementations import Implementation, Ours, Published, clip, new_model, new_reference
from benchmarks._stages import Clock, Stages, matmul_rate, synchronise
from benchmarks._variants import show_variants, variants
from entitysam.engine.build import open_model, pick_device
from entitysam.engine.evaluate.memory import peak_memory
from entitysam.inference.compiled import CompiledModel
from entitysam.inference.panoptic import PanopticMerge
from entitysam.inference.segmenter import VideoSegmenter
from entitysam.ops import fill_holes
from entitysam.precision import AMP
from entitysam.registry import ConfigError

WARM_FRAMES = 8  # seven fill the memory; one more, so that everything has run with a full one
TOLERANCE = 1e-4
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
OURS, COMPILED, PUBLISHED = "entitysam", "compiled", "published"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="vits", help="tiny, vits or vitl (default: vits)")
    parser.add_argument("--image-size", type=int, default=256, metavar="S", help="(default: 256)")
    parser.add_argument(
        "--frames",
        type=int,
        default=24,
        help="timed frames, after a warm-up of 8; 24 has a whole number of keyframes at every level (default: 24)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default: auto)")
    parser.add_argument("--dtype", choices=AMP, default="fp32", help="autocast (default: fp32, none)")
    parser.add_argument("--clock", choices=CLOCKS, default="wall",
                        help="cpu: time this process had; for one thread on a machine that others use too")  # fmt: skip
    parser.add_argument("--reference", type=Path, metavar="DIR", help="checkout of the published EntitySAM")
    parser.add_argument("--compiled", action="store_true",
                        help="the compiled network takes turns, too; its first frames compile it, which takes minutes on a CPU")  # fmt: skip
    parser.add_argument("--variants", choices=("none", "eager", "all"),
                        help="rows of the table of variants; all: compiled, too (default: all on a GPU, else none)")  # fmt: skip
    parser.add_argument(
        "--trained",
        action="store_true",
        help="the model's own weights for the variants, not random ones; tiny always has its own",
    )
    parser.add_argument("--peak-frames", type=int, nargs="+", default=[], metavar="N",
                        help="peak memory of whole videos of N frames, e.g. 30 300, each in a process of its own")  # fmt: skip


def run(arguments: argparse.Namespace) -> None:
    device, clock = pick_device(arguments.device), CLOCKS[arguments.clock]
    if arguments.reference and arguments.model not in ("vits", "vitl"):
        raise ConfigError(f"the published implementation has no model '{arguments.model}'; it has vits and vitl")
    print(
        f"{arguments.model} at {arguments.image_size}, {arguments.dtype}, {describe(device)}, {arguments.clock} clock"
    )
    model, weights = new_model(arguments.model, arguments.image_size, device)
    chosen = arguments.variants or ("all" if device.type == "cuda" else "none")
    if chosen != "none":
        images = torch.stack([model.prepare(frame) for frame in clip(WARM_FRAMES + arguments.frames)])
        network = model
        if arguments.trained:
            overrides = {"image_size": arguments.image_size}
            network = open_model(arguments.model, device=str(device), overrides=overrides).model
        show_variants(network, images, WARM_FRAMES, device, clock, list(variants(device, compiled=chosen == "all")))
    images = torch.stack([model.prepare(frame) for frame in clip(WARM_FRAMES + 2 * arguments.frames + 1)])
    warm, timed, watched, counted = images.split([WARM_FRAMES, arguments.frames, arguments.frames, 1])
    ours = Ours(model, arguments.dtype)
    implementations: dict[str, Implementation] = {OURS: ours}
    take_turns(implementations, warm, device, clock)
    print(f"peak memory with a full bank: {peak_memory(device):.0f} MiB")
    if arguments.compiled:
        implementations[COMPILED] = Ours(CompiledModel(model), arguments.dtype)
        warming = time.perf_counter()
        take_turns({COMPILED: implementations[COMPILED]}, warm, device, clock)
        print(f"warm-up of the compiled network: {time.perf_counter() - warming:.0f} s")
    if arguments.reference:
        reference = new_reference(arguments.reference, arguments.model, arguments.image_size, weights, device,
                                  arguments.dtype)  # fmt: skip
        implementations[PUBLISHED] = Published(reference, images)
        take_turns({PUBLISHED: implementations[PUBLISHED]}, warm, device, clock)
    laps, deviation = take_turns(implementations, timed, device, clock)
    stages = watch(implementations, watched, counted, device, clock)
    after_network(ours, watched, stages[OURS])
    show_speed(laps)
    show_stages(stages, arguments.frames)
    show_rate(stages, laps, matmul_rate(device, AMP[arguments.dtype] or torch.float32, clock))
    for frames in arguments.peak_frames:
        for name in implementations.keys() - {COMPILED}:
            print(f"peak memory of a video of {frames} frames, {name}: {peak_apart(name, arguments, frames):.0f} MiB")
    if len(implementations) > 1:
        show_deviation(deviation, arguments.dtype)


def take_turns(
    implementations: dict[str, Implementation], images: Tensor, device: torch.device, clock: Clock
) -> tuple[dict[str, float], float]:
    """Every implementation does a frame, then the next frame comes.

    Returns:
        mean seconds per frame of each, and the largest relative difference between outputs of the first and of any other.
    """
    seconds = dict.fromkeys(implementations, 0.0)
    deviation = 0.0
    for image in images:
        outputs = []
        for name, implementation in implementations.items():
            synchronise(device)
            started = clock()
            outputs.append(implementation.step(image))
            synchronise(device)
            seconds[name] += (clock() - started) / len(images)
        for compared in outputs[1:]:
            for own, other in zip(outputs[0], compared):
                deviation = max(deviation, ((own - other).norm() / other.norm()).item())
    return seconds, deviation


def watch(
    implementations: dict[str, Implementation], images: Tensor, counted: Tensor, device: torch.device, clock: Clock
) -> dict[str, Stages]:
    """Time of every implementation's stages over some frames, in turns; operations of one more frame.

    A compiled network has none.
    """
    implementations = {name: each for name, each in implementations.items() if name != COMPILED}
    stages = {name: Stages(device, clock) for name in implementations}
    for name, implementation in implementations.items():
        implementation.watch(stages[name])
    take_turns(implementations, images, device, clock)
    for name, implementation in implementations.items():
        stages[name].counting = True
        implementation.step(counted[0])
        stages[name].counting = False
    return stages


def after_network(ours: Ours, images: Tensor, stages: Stages) -> None:
    """Hole filling and the merge of as many frames, on outputs of the model."""
    filled, scores = [], []
    with torch.inference_mode():
        outputs = [Ours(ours.model, "fp32").step(images[0])] * len(images)
        for mask_logits, score in outputs:
            with stages.stage("hole filling"):
                filled.append(fill_holes(mask_logits))
            scores.append(score)
        with stages.stage("merge"):
            merge = PanopticMerge(torch.stack(scores).mean(0), next(clip(1)).shape[:2])
            decision = merge.decide(lambda: [torch.stack(filled, dim=1)])
            sum(1 for _ in merge.maps(lambda: [torch.stack(filled, dim=1)], decision))


# Memory -------------------------------------------------------------------------------------------------------------


def peak_apart(name: str, arguments: argparse.Namespace, frames: int) -> float:
    """Peak memory, in MiB, of a fresh process that segments a video of `frames` frames."""
    work = peak_of_ours if name == OURS else peak_of_reference
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, arguments, frames).result()


def peak_of_ours(arguments: argparse.Namespace, frames: int) -> float:
    device = pick_device(arguments.device)
    model, _ = new_model(arguments.model, arguments.image_size, device)
    for _ in VideoSegmenter(model, amp=arguments.dtype).segment(clip(frames)).iter_ids():
        pass
    return peak_memory(device)


def peak_of_reference(arguments: argparse.Namespace, frames: int) -> float:
    """Its propagation alone, without the merge."""
    device = pick_device(arguments.device)
    model, weights = new_model(arguments.model, arguments.image_size, device)
    images = torch.stack([model.prepare(frame) for frame in clip(frames)])
    del model
    reference = new_reference(arguments.reference, arguments.model, arguments.image_size, weights, device,
                              arguments.dtype)  # fmt: skip
    outputs = [output.mask_logits for output in reference.propagate(images)]
    assert len(outputs) == frames
    return peak_memory(device)


# What is printed ----------------------------------------------------------------------------------------------------


def describe(device: torch.device) -> str:
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{device.type} ({platform.processor() or platform.machine()}, {torch.get_num_threads()} threads)"
    return f"{name}, torch {torch.__version__}"


def show_speed(seconds: dict[str, float]) -> None:
    for name, each in seconds.items():
        print(f"{name:<10} {1 / each:8.3f} frames/s   {1000 * each:8.1f} ms/frame")
    for name, each in seconds.items():
        if name != OURS:
            print(f"{name} / {OURS}: {each / seconds[OURS]:.2f} x the time")
    if COMPILED in seconds and PUBLISHED in seconds:
        print(f"{PUBLISHED} / {COMPILED}: {seconds[PUBLISHED] / seconds[COMPILED]:.2f} x the time")


def show_stages(stages: dict[str, Stages], frames: int) -> None:
    """Per frame and stage: milliseconds, share of the time, GFLOP."""
    print("\n| stage |" + "".join(f" {name} ms | share | GFLOP |" for name in stages))
    print("| --- |" + " ---: | ---: | ---: |" * len(stages))
    totals = {name: sum(measured.seconds.values()) for name, measured in stages.items()}
    for stage in stages[OURS].seconds:
        cells = [
            f" {1000 * measured.seconds[stage] / frames:.1f} | {measured.seconds[stage] / totals[name]:.1%} |"
            f" {measured.flops[stage] / 1e9:.2f} |"
            for name, measured in stages.items()
        ]
        print(f"| {stage} |" + "".join(cells))
    cells = [
        f" {1000 * totals[name] / frames:.1f} | | {sum(measured.flops.values()) / 1e9:.2f} |"
        for name, measured in stages.items()
    ]
    print("| sum |" + "".join(cells) + "\n")


def show_rate(stages: dict[str, Stages], seconds: dict[str, float], rate: float) -> None:
    """Operations per second of the network beside those of a large matrix product."""
    print(f"matrix products run at {rate / 1e9:.0f} GFLOP/s here")
    for name in seconds:
        counted = stages[OURS if name == COMPILED else name]  # the same operations
        reached = sum(counted.flops.values()) / seconds[name]
        print(f"{name:<10} {reached / 1e9:.1f} GFLOP/s, {reached / rate:.0%} of it")


def show_deviation(deviation: float, dtype: str) -> None:
    """Raises SystemExit if outputs that should be equal are not."""
    print(f"largest relative difference of masks or scores on any timed frame: {deviation:.1e}")
    if dtype == "fp32" and not deviation <= TOLERANCE:
        raise SystemExit(f"the two implementations differ by more than {TOLERANCE}")
