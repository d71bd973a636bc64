"""E-SAM's modules one by one, in pairs and together on a simulated SAM: AP^e where the truth is known (Table 3).

SAM is simulated from the ground truth (tools/simulated_sam.py): the figures compare the modules with each other and say
nothing about SAM. Example: python tools/benchmark.py esam_ablation --panoptic FOLDER --synthetic 8
"""

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from simulated_sam import ErrorModel, SimulatedSAM

from entitysam.data.images import read_id_map, read_image
from entitysam.data.synthetic.render import render_video
from entitysam.esam.mask_generation import MaskGenerationConfig
from entitysam.esam.prompting import PromptedMasks
from entitysam.esam.protocol import PromptableImage
from entitysam.esam.recovery import RecoveryConfig
from entitysam.esam.refinement import RefinementConfig
from entitysam.esam.segmenter import ESAM
from entitysam.evaluation.entity_ap import EntityAP
from entitysam.evaluation.videos import Instance, InstanceVideo
from entitysam.ops import rle_encode

# MMG, EMR, USR and the paper's AP^e_L (ViT-L, EntitySeg-LR, Table 3).
ROWS = [
    ((False, False, False), 17.3),
    ((True, False, False), 20.3),
    ((False, True, False), 29.5),
    ((False, False, True), 22.7),
    ((False, True, True), 40.8),
    ((True, False, True), 38.1),
    ((True, True, False), 35.0),
    ((True, True, True), 43.6),
]


@dataclass
class Example:
    name: str
    image: np.ndarray  # uint8 [H, W, 3]
    ids: np.ndarray  # int32 [H, W], 0 = void


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--panoptic",
        action="append",
        default=[],
        nargs=2,
        metavar=("IMAGE", "PNG"),
        help="an image and its panoptic PNG; may be given several times",
    )
    parser.add_argument("--synthetic", type=int, default=4, help="number of synthetic images of 427 x 640")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--errors", action="append", default=[], help="override of the simulation, e.g. swallows=0.1")
    parser.add_argument("--mmg", action="append", default=[], help="override where MMG is on, e.g. object_best_iou=0")
    parser.add_argument("--emr", action="append", default=[], help="override where EMR is on, e.g. min_left=0")


def run(arguments: argparse.Namespace) -> None:
    errors = ErrorModel(**_numbers(arguments.errors))
    evaluators = [EntityAP() for _ in ROWS]
    covered = np.zeros(len(ROWS))
    examples = list(_examples(arguments))
    for number, example in enumerate(examples):
        start = time.perf_counter()
        sam = SimulatedSAM(example.ids, arguments.seed + number, errors)
        shared = _SharedPrompts(sam, _numbers(arguments.mmg), _numbers(arguments.emr))
        for index, (modules, _) in enumerate(ROWS):
            found = shared.with_modules(*modules).segment(example.image)
            covered[index] += (found.ids > 0).mean() / len(examples)
            evaluators[index].update(_scored(number, found.ids, found.scores, example.ids))
        print(f"{example.name}: {time.perf_counter() - start:.0f} s", flush=True)
    print("| MMG | EMR | USR | AP^e | AP^e50 | AP^e75 | covered | paper (SAM ViT-L) |\n" + "| --- " * 8 + "|")
    for (modules, paper), evaluator, share in zip(ROWS, evaluators, covered):
        values = evaluator.compute()
        marks = " | ".join("✓" if on else "-" for on in modules)
        scores = " | ".join(f"{100 * values[key]:.1f}" for key in ("AP^e", "AP^e50", "AP^e75"))
        print(f"| {marks} | {scores} | {100 * share:.1f} % | {paper} |")


def _numbers(words: list[str]) -> dict[str, float]:
    """["key=value", ...] as a dictionary."""
    return {key: float(value) for key, value in (word.split("=") for word in words)}


class _SharedPrompts(ESAM):
    """Prompts the simulated SAM once per grid for all rows of the table; the grids do not depend on the modules."""

    def __init__(self, segmenter: SimulatedSAM, mmg: dict[str, float], emr: dict[str, float]):
        super().__init__(segmenter)
        self._mmg, self._emr = mmg, emr
        self._prompted: dict[bool, PromptedMasks] = {}
        self._encoded: PromptableImage | None = None
        self._sam = segmenter
        self.segmenter = self

    def encode(self, image: torch.Tensor) -> PromptableImage:
        if self._encoded is None:
            self._encoded = self._sam.encode(image)
        return self._encoded

    def with_modules(self, mmg: bool, emr: bool, usr: bool) -> ESAM:
        self.mask_generation = MaskGenerationConfig(enabled=mmg, **(self._mmg if mmg else {}))
        self.refinement = RefinementConfig(enabled=emr, **self._emr)
        self.recovery = RecoveryConfig(enabled=usr)
        return self

    def prompt_grid(self, encoded: PromptableImage, size: tuple[int, int], dense: bool) -> PromptedMasks:
        if dense not in self._prompted:
            self._prompted[dense] = super().prompt_grid(encoded, size, dense)
        return self._prompted[dense]


def _examples(arguments: argparse.Namespace) -> Iterator[Example]:
    for image, truth in arguments.panoptic:
        ids = read_id_map(truth)
        yield Example(Path(image).name, read_image(image, ids.shape), ids)
    for index in range(arguments.synthetic):
        frames, ids, _ = render_video([arguments.seed, index], 1, (427, 640))
        yield Example(f"synthetic {index}", frames[0], ids[0])


def _scored(number: int, ids: np.ndarray, scores: np.ndarray, truth: np.ndarray) -> InstanceVideo:
    """One image for the evaluator."""
    found = [Instance(1, [rle_encode(ids == i + 1)], float(score)) for i, score in enumerate(scores)]
    wanted = [Instance(1, [rle_encode(truth == i)]) for i in np.unique(truth) if i]
    return InstanceVideo(number, wanted, found)
