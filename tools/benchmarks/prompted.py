"""SAM 2.1 with prompts beside its public implementation: seconds per frame with 1 and more objects, and memory over long videos.

Both run on the same random weights, frames and clicks, frame by frame in turns, in one process. Times are processor seconds unless
`--clock wall`. REFERENCE is a checkout of github.com/facebookresearch/sam2. Example, with OMP_NUM_THREADS=1:
python tools/benchmark.py prompted --reference sam2 --objects 1 16
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

import entitysam
from entitysam.engine.evaluate.memory import held_memory, peak_memory, reset_peak
from entitysam.sam2.names import from_release
from entitysam.sam2.prompts import Prompt
from entitysam.sam2.segmenter import PromptedSegmenter
from entitysam.sam2.session import PromptedSession

CONFIGS = {"tiny": "t", "small": "s", "base_plus": "b+", "large": "l"}
SCORE_BIAS = "sam_mask_decoder.pred_obj_score_head.layers.2.bias"
WARM_FRAMES = 8  # until the memory is full
CLOCKS: dict[str, Callable[[], float]] = {"cpu": time.process_time, "wall": time.perf_counter}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reference", type=Path, help="checkout of the public implementation")
    parser.add_argument("--model", choices=tuple(CONFIGS), default="small")
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--frames", type=int, default=4, help="measured frames, with a full memory")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="cpu")
    parser.add_argument("--long", type=int, default=0, metavar="N", help="memory over N frames of a video instead")
    parser.add_argument("--seed", type=int, default=0)


def run(arguments: argparse.Namespace) -> None:
    if arguments.long:
        print(long_video(arguments))
        return
    if arguments.reference is None:
        raise SystemExit("error: --reference is needed, a checkout of facebookresearch/sam2")
    print(
        "| objects | entitysam s/frame | public s/frame | ratio | largest relative difference |\n| ---: | ---: | ---: | ---: | ---: |"
    )
    for count in arguments.objects:
        print(side_by_side(arguments, count), flush=True)


def video(count: int, frames: int, seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Frames uint8 [240, 320, 3] of noise that moves, and `count` clicks (x, y)."""
    generator = np.random.default_rng(seed)
    small = generator.integers(0, 255, (24, 48, 3), np.uint8)
    large = np.kron(small, np.ones((12, 12, 1), np.uint8))
    clicks = np.stack([generator.integers(10, 310, count), generator.integers(10, 230, count)], axis=1)
    return [np.ascontiguousarray(large[:240, 3 * t : 3 * t + 320]) for t in range(frames)], clicks.astype(np.float32)


def side_by_side(arguments: argparse.Namespace, count: int) -> str:
    """A row of the table: both implementations, frame by frame in turns."""
    frames, clicks = video(count, 1 + WARM_FRAMES + arguments.frames, arguments.seed)
    predictor, theirs = reference(arguments, frames, clicks)
    model = entitysam.build_model(f"sam2_{arguments.model}", image_size=arguments.image_size)
    model.load_state_dict(from_release(predictor.state_dict(), "the public model"))
    session = PromptedSession(model, frames, fill_hole_area=0, keep_history=False)
    for number, click in enumerate(clicks, start=1):
        session.add_points(0, number, [click], [1])
    ours, seconds, worst = (frame.mask_logits for frame in session.propagate()), [0.0, 0.0], 0.0
    clock = CLOCKS[arguments.clock]
    for index in range(len(frames)):
        logits = []
        for place, frame_masks in enumerate((ours, theirs) if index % 2 else (theirs, ours)):
            started = clock()
            logits.append(next(frame_masks))
            if index > WARM_FRAMES:
                seconds[place if index % 2 else 1 - place] += clock() - started
        scale = max(float(logits[0].abs().max()), 1e-9)
        worst = max(worst, float((logits[0] - logits[1]).abs().max()) / scale)
    own, public = (value / arguments.frames for value in seconds)
    return f"| {count} | {own:.3f} | {public:.3f} | {public / own:.2f} | {worst:.1e} |"


def reference(
    arguments: argparse.Namespace, frames: list[np.ndarray], clicks: np.ndarray
) -> tuple[Any, Iterator[torch.Tensor]]:
    """The public predictor, and its mask logits [N, H, W] frame by frame. Memories stay in float32."""
    if str(arguments.reference) not in sys.path:
        sys.path.insert(0, str(arguments.reference))
    import sam2.sam2_video_predictor as module
    from hydra import initialize_config_module
    from hydra.core.global_hydra import GlobalHydra
    from sam2.build_sam import build_sam2_video_predictor

    GlobalHydra.instance().clear()  # building ours has ended what importing theirs started
    initialize_config_module("sam2", version_base="1.2")
    torch.manual_seed(arguments.seed)
    predictor = build_sam2_video_predictor(
        f"configs/sam2.1/sam2.1_hiera_{CONFIGS[arguments.model]}.yaml", None, device="cpu",
        hydra_overrides_extra=[
            f"++model.image_size={arguments.image_size}",
            "++model.add_all_frames_to_correct_as_cond=true",
            "++model.fill_hole_area=0",
        ],
    )  # fmt: skip
    predictor.state_dict()[SCORE_BIAS].fill_(2.0)  # objects are visible
    module.torch = SimpleNamespace(**{**vars(torch), "bfloat16": torch.float32})
    ours = entitysam.build_model(f"sam2_{arguments.model}", image_size=arguments.image_size)
    images = torch.stack([ours.prepare(frame) for frame in frames])
    module.load_video_frames = lambda **given: (images, *frames[0].shape[:2])
    state = predictor.init_state("clip")
    for number, click in enumerate(clicks, start=1):
        predictor.add_new_points_or_box(state, 0, number, points=[click.tolist()], labels=[1])
    return predictor, (logits[:, 0] for _, _, logits in predictor.propagate_in_video(state))


def long_video(arguments: argparse.Namespace) -> str:
    """Memory that a prompted video of N frames adds, after its first frames and at its end."""
    model = entitysam.build_model(f"sam2_{arguments.model}", image_size=arguments.image_size)
    count = arguments.objects[0]
    frames, clicks = video(count, 60, arguments.seed)
    several = [frames[min(t, 119 - t)] for t in range(120)]  # there and back, without a jump
    held: list[float] = []

    class Frames:
        def __iter__(self) -> Iterator[np.ndarray]:
            for index in range(arguments.long):
                if index in (100, arguments.long - 1):
                    held.append(held_memory(torch.device("cpu")))
                yield several[index % 120]

    prompts = [
        Prompt(number, points=(tuple(click.tolist()),), labels=(1,)) for number, click in enumerate(clicks, start=1)
    ]
    reset_peak(torch.device("cpu"))
    PromptedSegmenter(model).segment(Frames(), prompts, num_frames=arguments.long)
    return (
        f"{arguments.long} frames, {count} objects: {held[0]:.0f} MiB held after 100 frames, {held[-1]:.0f} at the end "
        f"({held[-1] / held[0]:.3f} x); peak {peak_memory(torch.device('cpu')):.0f} MiB"
    )
