"""Re-identification on synthetic clips whose entities leave and return: VEQ and IDF1 before and after.

Rows "annotation": perfect masks whose ids change at every return, which measures MASA alone. Rows "EntitySAM": what
the network itself finds, with its memory, and frame by frame, linked by IoU, where returning entities get new ids. Example:
python tools/benchmark.py reid --masa checkpoints/masa_tiny.safetensors random --weights checkpoints/entitysam_tiny.safetensors
"""

import argparse

import numpy as np
import torch

from entitysam.cli.shared.models import open_model
from entitysam.data.synthetic.returning import new_at_return, render_returning
from entitysam.engine.formats.panoptic import boxes, segments_info
from entitysam.engine.methods.context import MethodContext
from entitysam.engine.methods.linked import LinkedByOverlap
from entitysam.engine.methods.masa import open_masa
from entitysam.engine.methods.streamed import StreamedVideo
from entitysam.evaluation import VEQ, BoxTracking, PanopticSequence, PanopticVideo, TrackedVideo
from entitysam.inference.segmenter import VideoSegmenter
from entitysam.masa.reid import BETA, Reidentifier
from entitysam.structures import VideoSegments

ENTITY = [{"id": 1, "name": "entity", "isthing": 1}]
NUMBERS = ("IDF1", "AssA", "IDSW")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--masa", nargs="*", default=["random"], help="weights of MASA, or 'random'; a row for each")
    parser.add_argument("--weights", default="", help="of EntitySAM; without, only the annotation's rows")
    parser.add_argument("--videos", type=int, default=12)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--beta", type=float, nargs="+", default=[BETA], help="least similarity; rows for each")
    parser.add_argument("--seed", type=int, default=0)


def run(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    clips = [render_returning((arguments.seed, 9, index), arguments.frames)[:2] for index in range(arguments.videos)]
    sources = {"annotation, new ids": [(frames, ids, new_ids(ids)) for frames, ids in clips]}
    if arguments.weights:
        segmenter = VideoSegmenter(open_model(arguments.weights, None, "cpu", {}).model)
        linked = LinkedByOverlap(MethodContext(arguments.weights, inference={"warmup_frames": 0}))
        sources["EntitySAM"] = [(frames, ids, segmenter.segment(frames)) for frames, ids in clips]
        sources["EntitySAM, frames linked by IoU"] = [
            (frames, ids, collected(linked.segment(frames, ids.shape[1:]))) for frames, ids in clips
        ]
    print("| entities | re-identification | VEQ | IDF1 | AssA | IDSW | merged |\n| --- | --- |" + " ---: |" * 5)
    for name, videos in sources.items():
        print(row(name, "none", videos, None), flush=True)
        for weights in arguments.masa:
            model = open_masa(weights)
            for beta in arguments.beta:
                how = f"{weights.rpartition('/')[2]}, beta {beta:g}"
                print(row(name, how, videos, Reidentifier(model, beta=beta)), flush=True)  # type: ignore[arg-type]


def row(name: str, how: str, videos: list, reidentifier: Reidentifier | None) -> str:
    """A line of the table."""
    veq, tracking, merged = VEQ(), BoxTracking(ENTITY), 0
    for index, (frames, truth, found) in enumerate(videos):
        result = found if reidentifier is None else reidentifier.merge(frames, found)
        before, after = (list(video.iter_ids()) for video in (found, result))
        merged += len(np.unique(before)) - len(np.unique(after))
        sides = sequence(truth), sequence(after)
        veq.update(PanopticVideo(index, *sides))
        tracking.update(
            TrackedVideo(
                index, *(boxes(side, class_agnostic=True, where=name) for side, name in zip(sides, ("truth", "found")))
            )
        )
    numbers = tracking.percent(tracking.compute())
    cells = [f"{veq.compute()['VEQ'] * veq.scale:.2f}", *(f"{numbers[key]:.2f}" for key in NUMBERS), str(merged)]
    return f"| {name} | {how} | " + " | ".join(cells) + " |"


def sequence(maps: "np.ndarray | list[np.ndarray]") -> PanopticSequence:
    """Maps [T][H, W] as one side of an evaluation."""
    return PanopticSequence([segments_info(ids) for ids in maps], lambda frame: maps[frame])


def new_ids(ids: np.ndarray) -> VideoSegments:
    """Annotated ids [T, H, W] as a segmented video in which returning entities have new ids."""
    broken = new_at_return(ids)
    return VideoSegments.of(broken, np.ones(broken.max()))


def collected(video: StreamedVideo) -> VideoSegments:
    """A streamed video, whole."""
    maps = list(video.iter_ids())
    return VideoSegments.of(maps, video.scores)
