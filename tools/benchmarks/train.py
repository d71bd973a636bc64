"""Speed and memory of a training step, per stage; beside the published implementation where a checkout of it is given.

Example: python tools/benchmark.py train --model vits --image-size 256 --frames 8 --reference path/to/checkout
A step is forward, criterion, backward and optimiser on one clip, always the same, with frozen encoders and memory. With
--reference the two implementations run in turns on the same weights and clip, and their outputs are compared.
Peak memory is that of a fresh process per implementation, above what the loaded model holds.
"""

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch

from benchmarks._live_memory import simulated_peak
from benchmarks._stages import REST, Stages, matmul_rate, synchronise
from benchmarks._training_implementations import Outputs, PublishedTraining, TrainingImplementation, new_implementation
from benchmarks.model import CLOCKS, OURS, PUBLISHED, describe
from entitysam.engine.build import pick_device
from entitysam.engine.evaluate.memory import held_memory, reset_peak
from entitysam.precision import AMP
from entitysam.registry import ConfigError

TOLERANCE = 1e-4
SPEED_TARGET, MEMORY_TARGET = 1.5, 0.6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="vits", help="tiny, vits or vitl (default: vits)")
    parser.add_argument("--image-size", type=int, metavar="S", help="(default: 1024 on CUDA, 256 elsewhere)")
    parser.add_argument("--frames", type=int, default=8, metavar="T", help="of the clip (default: 8, stage 2)")
    parser.add_argument("--steps", type=int, default=1, help="timed steps, after one of warm-up (default: 1)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default: auto)")
    parser.add_argument("--dtype", choices=AMP, help="autocast (default: bf16 on CUDA, fp32 elsewhere)")
    parser.add_argument("--clock", choices=CLOCKS, default="wall",
                        help="cpu: time this process had; for one thread on a machine that others use too")  # fmt: skip
    parser.add_argument("--store-activations", action="store_true",
                        help="model.checkpoint_activations=false of this project")  # fmt: skip
    parser.add_argument("--reference", type=Path, metavar="DIR", help="checkout of the published EntitySAM")
    parser.add_argument("--simulate", action="store_true",
                        help="peak memory of this project from the shapes of tensors alone; for any size on any machine")  # fmt: skip
    parser.add_argument("--only", choices=("speed", "memory"), help="half of the measurement (default: both)")


def run(arguments: argparse.Namespace) -> None:
    device = pick_device(arguments.device)
    arguments.image_size = arguments.image_size or (1024 if device.type == "cuda" else 256)
    arguments.dtype = arguments.dtype or ("bf16" if device.type == "cuda" else "fp32")
    if arguments.reference and arguments.model not in ("vits", "vitl"):
        raise ConfigError(f"the published implementation has no model '{arguments.model}'; it has vits and vitl")
    print(f"{arguments.model} at {arguments.image_size}, {arguments.frames} frames, {arguments.dtype}, "
          f"{'activations stored' if arguments.store_activations else 'activations recomputed'}, "
          f"{describe(device)}, {arguments.clock} clock")  # fmt: skip
    if arguments.simulate:
        peak, held = simulated_peak(arguments.model, arguments.frames, arguments.image_size, arguments.dtype,
                                    not arguments.store_activations)  # fmt: skip
        print(f"tensors of a step: {peak:.2f} GiB at most, {held:.2f} GiB between steps")
        return
    names = [OURS, PUBLISHED] if arguments.reference else [OURS]
    if arguments.only != "memory":
        measure_speed(names, arguments, device)
    if arguments.only != "speed":
        show_memory({name: in_fresh_process(name, arguments) for name in names})


def build_implementation(name: str, arguments: argparse.Namespace, device: torch.device) -> TrainingImplementation:
    checkout = arguments.reference if name == PUBLISHED else None
    return new_implementation(checkout, arguments.model, arguments.frames, arguments.image_size, device, arguments.dtype,
                    not arguments.store_activations)  # fmt: skip


# Speed --------------------------------------------------------------------------------------------------------------


def measure_speed(names: Sequence[str], arguments: argparse.Namespace, device: torch.device) -> None:
    """Warms up, compares, times whole steps and then their stages, and prints."""
    clock = CLOCKS[arguments.clock]
    implementations = {name: build_implementation(name, arguments, device) for name in names}
    outputs = warm_up(implementations)
    if PUBLISHED in implementations:
        show_deviation(outputs, arguments.dtype)
    stages = {name: Stages(device, clock) for name in implementations}
    for name, implementation in implementations.items():
        implementation.watch(stages[name])
    seconds = dict.fromkeys(implementations, 0.0)
    for _ in range(arguments.steps):
        for name, implementation in implementations.items():
            synchronise(device)
            started = clock()
            implementation.step()
            synchronise(device)
            seconds[name] += (clock() - started) / arguments.steps
    for name, each in seconds.items():
        print(f"{name:<10} {each:8.3f} s/it   {1 / each:8.4f} clips/s")
    if PUBLISHED in seconds:
        print(f"{'ratio':<10} {seconds[PUBLISHED] / seconds[OURS]:8.2f} (target {SPEED_TARGET})")
    show_stages(stages, seconds, arguments.steps)
    rate = matmul_rate(device, AMP[arguments.dtype] or torch.float32, clock)
    print(f"matrix products run at {rate / 1e9:.0f} GFLOP/s here")


def warm_up(implementations: dict[str, TrainingImplementation]) -> dict[str, Outputs]:
    """A step of each, without the randomness that the published training leaves in frozen parts."""
    outputs = {}
    for name, implementation in implementations.items():
        if isinstance(implementation, PublishedTraining):
            implementation.frozen_parts_train(False)
        outputs[name] = implementation.step()
        if isinstance(implementation, PublishedTraining):
            implementation.frozen_parts_train(True)
    return outputs


def show_deviation(outputs: dict[str, Outputs], dtype: str) -> None:
    """Raises SystemExit if outputs that should be equal are not."""
    pairs = zip(outputs[OURS], outputs[PUBLISHED])
    deviation = max(((own - other).norm() / other.norm()).item() for own, other in pairs)
    print(f"largest relative difference of masks, IoU or entity logits of the clip: {deviation:.1e}")
    if dtype == "fp32" and not deviation <= TOLERANCE:
        raise SystemExit(f"the two implementations differ by more than {TOLERANCE}")


def show_stages(stages: dict[str, Stages], seconds: dict[str, float], steps: int) -> None:
    """Milliseconds and share of the step, per stage; what belongs to none is the rest."""
    print("\n| stage |" + "".join(f" {name} ms | share |" for name in stages))
    print("| --- |" + " ---: | ---: |" * len(stages))
    for stage in stages[OURS].seconds:
        cells = [cell(measured.seconds[stage] / steps, seconds[name]) for name, measured in stages.items()]
        print(f"| {stage} |" + "".join(cells))
    rest = [
        cell(seconds[name] - sum(measured.seconds.values()) / steps, seconds[name]) for name, measured in stages.items()
    ]
    print(f"| {REST} |" + "".join(rest) + "\n")


def cell(part: float, whole: float) -> str:
    return f" {1000 * part:.1f} | {part / whole:.1%} |"


# Memory and operations ----------------------------------------------------------------------------------------------


@dataclass
class Needs:
    """What a training needs, in MiB and operations.

    Attributes:
        model: held by the loaded model and the clip.
        states: held besides, once the optimiser has its states.
        peaks: highest during a stage of a step, above `model`.
        flops: operations of a step, per stage.
    """

    model: float
    states: float
    peaks: dict[str, float]
    flops: dict[str, int]


def in_fresh_process(name: str, arguments: argparse.Namespace) -> Needs:
    """The needs of one implementation, measured in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(needs, name, arguments).result()


def needs(name: str, arguments: argparse.Namespace) -> Needs:
    """Two steps: one counts operations and creates the optimiser's states, one is measured."""
    device = pick_device(arguments.device)
    implementation = build_implementation(name, arguments, device)
    model = held_memory(device)
    stages = Stages(device)
    implementation.watch(stages)
    stages.counting = True
    implementation.step()
    stages.counting = False
    states = held_memory(device) - model
    reset_peak(device)
    implementation.step()
    return Needs(model, states, {stage: peak - model for stage, peak in stages.peaks.items()}, stages.flops)


def show_memory(needed: dict[str, Needs]) -> None:
    print("\n| stage |" + "".join(f" {name} peak MiB | GFLOP |" for name in needed))
    print("| --- |" + " ---: | ---: |" * len(needed))
    for stage in sorted(needed[OURS].peaks, key=lambda stage: stage == REST):
        cells = [f" {one.peaks[stage]:.0f} | {one.flops.get(stage, 0) / 1e9:.1f} |" for one in needed.values()]
        print(f"| {stage} |" + "".join(cells))
    highest = {name: max(one.peaks.values()) for name, one in needed.items()}
    cells = [f" {highest[name]:.0f} | {sum(one.flops.values()) / 1e9:.1f} |" for name, one in needed.items()]
    print("| step |" + "".join(cells))
    for name, one in needed.items():
        print(f"{name:<10} peak {highest[name]:.0f} MiB above the loaded model ({one.model:.0f} MiB), "
              f"{one.states:.0f} MiB of it between steps")  # fmt: skip
    if PUBLISHED in needed:
        print(f"{'ratio':<10} {highest[OURS] / highest[PUBLISHED]:8.2f} (target {MEMORY_TARGET})")
