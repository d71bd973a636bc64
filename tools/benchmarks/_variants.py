"""Precisions, the compiled network and the levels of speed as rows of one table."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks._stages import Clock, matmul_rate, synchronise
from entitysam.engine.evaluate.memory import peak_memory, reset_peak
from entitysam.inference.keyframes import at_speed
from entitysam.models.entity_sam import EntitySAM
from entitysam.precision import AMP, autocast, set_arithmetic
from entitysam.speed import LEVELS

SEEN = 0.05  # score of an entity that counts


@dataclass(frozen=True)
class Variant:
    """A row: precision ("fp32", "tf32", "bf16", "fp16"), whether it is compiled, and the level of speed."""

    precision: str
    compiled: bool = False
    level: int = 0

    @property
    def title(self) -> str:
        return f"{self.precision}{', compiled' * self.compiled}{f', level {self.level}' * bool(self.level)}"


def variants(device: torch.device, compiled: bool) -> Iterator[Variant]:
    """All rows for a device; the first is what the others are compared with. TF32 exists on a GPU only."""
    precisions = ["fp32", "tf32", "bf16"] if device.type == "cuda" else ["fp32", "bf16"]
    yield from (Variant(precision) for precision in precisions)
    if compiled:
        yield from (Variant(precision, compiled=True) for precision in precisions)
    yield from (Variant("fp32", level=level) for level in LEVELS if level)
    if device.type == "cuda":
        yield from (Variant("bf16", level=level) for level in LEVELS if level)


def show_variants(
    model: EntitySAM, images: Tensor, warm: int, device: torch.device, clock: Clock, rows: list[Variant]
) -> None:
    """Prints a row per variant.

    Args:
        model: in eval mode, on its device.
        images: [T, 3, S, S] normalised frames; every variant runs all of them and is timed after the first `warm`.
        warm: frames that fill the memory and compile the graphs.
    """
    print(
        "\n| variant | frames/s | ratio | share of the matrix rate | peak memory, MiB | mask IoU with fp32 | warm-up, s |"
    )
    print("| --- |" + " ---: |" * 6)
    exact_seconds, exact_masks = 0.0, images.new_zeros(0)
    for row in rows:
        seconds, masks, peak, warming = measure(row, model, images, warm, device, clock)
        if not exact_seconds:
            exact_seconds, exact_masks, operations = seconds, masks, count_operations(model, images)
        share = "" if row.level else f"{operations / seconds / rate(row, device, clock):.0%}"
        iou = float((masks & exact_masks).sum() / (masks | exact_masks).sum().clamp(min=1))
        print(f"| {row.title} | {1 / seconds:.3f} | {exact_seconds / seconds:.2f} | {share} | {peak:.0f} | {iou:.4f} | {warming:.0f} |",
              flush=True)  # fmt: skip


def measure(
    row: Variant, model: EntitySAM, images: Tensor, warm: int, device: torch.device, clock: Clock
) -> tuple[float, Tensor, float, float]:
    """Seconds per frame, masks bool [T, Q, S/4, S/4] of the timed frames, peak MiB of them, wall seconds of the warm-up."""
    set_arithmetic("high" if row.precision == "tf32" else "highest")
    network = at_speed(model, LEVELS[row.level], row.compiled)
    state, masks, started, warmed = network.initial_state(), [], 0.0, time.perf_counter()
    with torch.inference_mode(), autocast("fp32" if row.precision == "tf32" else row.precision, device):
        for index, image in enumerate(images):
            if index == warm:
                synchronise(device)
                reset_peak(device)
                warming, started = time.perf_counter() - warmed, clock()
            output, state = network.propagate(network.encode(image[None])[0], state)
            if index >= warm:
                masks.append((output.mask_logits > 0) & (output.score >= SEEN)[:, None, None])
        synchronise(device)
    seconds = (clock() - started) / (len(images) - warm)
    set_arithmetic()
    return seconds, torch.stack(masks).cpu(), peak_memory(device), warming


def count_operations(model: EntitySAM, images: Tensor) -> int:
    """Of one frame with a full bank."""
    with torch.inference_mode():
        features, state = model.encode(images[:1])[0], model.initial_state()
        _, state = model.propagate(features, state)
        state = type(state)(1, state.points, state.memories * getattr(model.memory, "num_memories", 1))
        with FlopCounterMode(display=False) as counter:
            model.propagate(model.encode(images[:1])[0], state)
    return counter.get_total_flops()


def rate(row: Variant, device: torch.device, clock: Clock) -> float:
    """Operations per second of a large matrix product in this precision."""
    set_arithmetic("high" if row.precision == "tf32" else "highest")
    found = matmul_rate(device, AMP.get(row.precision) or torch.float32, clock)
    set_arithmetic()
    return found
