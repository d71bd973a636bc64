"""Ids in long synthetic videos (`synthetic.long`): the published protocol, online ids as queries, and ids of entities.

All online rows and the published protocol share one run of the network, and all rows of windows another. Scores: VEQ at several
windows, IDF1 and AssA of boxes, STQ^EN. Example:
python tools/benchmark.py long_videos --weights checkpoints/entitysam_tiny.safetensors --frames 600 --videos 1
"""

import argparse
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from entitysam.cli.shared.models import open_model
from entitysam.data.synthetic.long import LongVideo
from entitysam.data.synthetic.writer import SPLIT_CODES, THINGS_PER_5000_FRAMES
from entitysam.engine.formats.panoptic import boxes, segments_info
from entitysam.engine.methods.appearance import MasaAppearance
from entitysam.engine.methods.masa import open_masa
from entitysam.evaluation import VEQ, BoxTracking, EntitySTQ, PanopticSequence, PanopticVideo, TrackedVideo
from entitysam.inference.identity import Appearance, EntityRegistry, no_appearance, token_appearance
from entitysam.inference.online import OnlineEntities
from entitysam.inference.panoptic import PanopticMerge
from entitysam.inference.segmenter import VideoSegmenter
from entitysam.inference.windows.merge import WindowMerge
from entitysam.inference.windows.video import window_ranges
from entitysam.inference.windows.window import PackedWindow, WindowRun, pack_map, unpack_map
from entitysam.ops import fill_holes

ENTITY = [{"id": 1, "name": "entity", "isthing": 1}]
LENGTHS = (8, 32, 128, 512)


class QueriesAsIds(EntityRegistry):
    """Ids as they were: an entity is a query."""

    def update(self, queries: np.ndarray, scores: Any, embeddings: Any = None) -> Any:
        return queries, []


class MeanScore(OnlineEntities):
    """The confidence as it was: the mean over all passes so far."""

    def count(self, score: Any) -> None:
        self.total, self.passes = (score + self.total, self.passes + 1) if hasattr(self, "total") else (score, 1)

    def confidence(self) -> Any:
        return self.total / self.passes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", default="tiny", help="of EntitySAM: a file or a name")
    parser.add_argument("--masa", nargs="*", default=["masa_tiny"], help="weights of MASA; rows for each")
    parser.add_argument("--videos", type=int, default=1)
    parser.add_argument("--frames", type=int, default=600, help="of each video; 5000 is the full set")
    parser.add_argument("--window", type=int, default=100, help="frames of a window")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)


def run(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    model = open_model(arguments.weights, None, arguments.device, {}).model
    segmenter = VideoSegmenter(model, appearance="none", ids="queries")
    appearances: dict[str, Appearance] = {"overlap alone": no_appearance, "tokens": token_appearance}
    for weights in arguments.masa:
        appearances[f"MASA {weights.rpartition('/')[2]}"] = MasaAppearance(
            open_masa(None if weights == "masa_tiny" else weights).to(model.device)
        )
    table: dict[str, Scores] = {}
    for index in range(arguments.videos):
        things = max(arguments.frames * THINGS_PER_5000_FRAMES // 5000, 1)
        video = LongVideo((arguments.seed, SPLIT_CODES["long"], index), arguments.frames, num_things=things)
        truth = [pack_map(ids) for _, ids in video]
        rows = one_run(segmenter, video, appearances) | windows(segmenter, video, appearances, arguments.window)
        for name, maps in rows.items():
            table.setdefault(name, Scores(arguments.frames)).add(index, truth, maps)
    print(f"| | {' | '.join(f'VEQ@{length}' for length in LENGTHS)} | IDF1 | AssA | STQ^EN | ids |")
    print("| --- |" + " ---: |" * (len(LENGTHS) + 4))
    for name, scores in table.items():
        print(f"| {name} | {' | '.join(scores.cells())} |", flush=True)


def one_run(segmenter: VideoSegmenter, video: LongVideo, appearances: dict[str, Appearance]) -> dict[str, list[bytes]]:
    """The published protocol and all online rows, from one run of the network: name -> packed maps."""
    settings = segmenter.settings
    before = MeanScore(**settings)
    before.registry = QueriesAsIds()
    plain = OnlineEntities(**settings)
    plain.registry = QueriesAsIds()
    online = {f"online, {name}": (OnlineEntities(**settings), one) for name, one in appearances.items()}
    rows: dict[str, list[bytes]] = {"online before: mean score, query as id": [], "online, query as id": []}
    rows |= {name: [] for name in online}
    logits, scores, state = [], [], segmenter.model.initial_state()
    started, used = time.process_time(), dict.fromkeys(appearances, 0.0)
    for time_index, (frame, _) in enumerate(video):
        outputs, state, features = segmenter._passes(frame, state, first=time_index == 0)
        scores += [output.score.float().cpu() for output in outputs]
        mask_logits = fill_holes(outputs[-1].mask_logits, segmenter.hole_area)
        logits.append(mask_logits.half().cpu())
        for name, entities in (("online before: mean score, query as id", before), ("online, query as id", plain)):
            rows[name].append(pack_map(update(entities, outputs, mask_logits, frame, None)))
        for name, (entities, appearance) in online.items():
            begin = time.process_time()
            with torch.inference_mode():
                embeddings = appearance(frame, features, mask_logits)
            rows[name].append(pack_map(update(entities, outputs, mask_logits, frame, embeddings)))
            used[name.removeprefix("online, ")] += time.process_time() - begin
    count = len(logits)
    total = (time.process_time() - started - sum(used.values())) / count
    spent = ", ".join(f"{name} {1000 * seconds / count:.1f}" for name, seconds in used.items())
    print(f"ms per frame: rendering, network and queries as ids {1000 * total:.1f}; ids by {spent}", flush=True)
    merge = PanopticMerge(torch.stack(scores).mean(0), video.size, **settings)
    chunks = lambda: (one[:, None].float() for one in logits)  # noqa: E731
    decision = merge.decide(chunks)
    return {"published protocol": [pack_map(ids) for ids in merge.maps(chunks, decision)]} | rows


def update(entities: OnlineEntities, outputs: Any, mask_logits: Any, frame: np.ndarray, embeddings: Any) -> np.ndarray:
    for output in outputs:
        entities.count(output.score)
    return entities.update(mask_logits, frame.shape[:2], embeddings)[0]


def windows(
    segmenter: VideoSegmenter, video: LongVideo, appearances: dict[str, Appearance], length: int
) -> dict[str, list[bytes]]:
    """All rows of windows, from one run of the network."""
    ranges = window_ranges(len(video), length)
    overlap = len(set(ranges[0]) & set(ranges[1])) if len(ranges) > 1 else 1
    merges = {f"windows of {length}, {name}": (WindowMerge(overlap), name) for name in appearances}
    merges |= {
        f"windows of {length}, {name}, query as id inside": (WindowMerge(overlap, follow=False), name)
        for name in appearances
    }
    rows: dict[str, list[bytes]] = {name: [] for name in merges}
    for index, numbers in enumerate(ranges):
        looks, window = all_embeddings(segmenter, [video.frame(t)[0] for t in numbers], appearances)
        maps = [pack_map(ids) for ids in window.iter_ids()]
        for row, (merge, name) in merges.items():
            packed = PackedWindow(
                window.num_frames, window.scores, window.frame_scores, window.saturated, *looks[name], False, maps
            )
            rows[row] += [pack_map(frame.ids) for frame in merge.add(packed, index == len(ranges) - 1)]
    return rows


def all_embeddings(
    segmenter: VideoSegmenter, frames: list[np.ndarray], appearances: dict[str, Appearance]
) -> tuple[dict[str, tuple[Tensor | None, Tensor | None]], WindowRun]:
    """The appearance of a window's entities by each method, [n, C] and [T, n, C], from one run of the network."""
    sizes: list[int] = []

    def together(frame: np.ndarray, features: Any, mask_logits: Tensor) -> Tensor:
        parts = [one(frame, features, mask_logits) for one in appearances.values()]
        sizes[:] = [0 if part is None else part.shape[1] for part in parts]
        return torch.cat([part for part in parts if part is not None], dim=1)

    run = WindowRun(VideoSegmenter(segmenter.model, appearance=together, ids=segmenter.ids), frames, (1, 1))
    assert run.embeddings is not None  # tokens are among the appearances
    assert run.frame_embeddings is not None
    split = zip(torch.split(run.embeddings, sizes, dim=1), torch.split(run.frame_embeddings, sizes, dim=2))
    return {
        name: (F.normalize(mean, dim=1), each) if mean.shape[1] else (None, None)
        for name, (mean, each) in zip(appearances, split)
    }, run


class Scores:
    """The metrics of a row of the table."""

    def __init__(self, num_frames: int) -> None:
        self.veq = VEQ(windows=[length for length in LENGTHS if length <= num_frames])
        self.tracking, self.stq = BoxTracking(ENTITY), EntitySTQ()
        self.num_ids = 0

    def add(self, index: int, truth: list[bytes], found: list[bytes]) -> None:
        self.num_ids += len(set().union(*(np.unique(ids).tolist() for ids in unpacked(found))) - {0})
        sides = sequence(truth), sequence(found)
        for evaluator in (self.veq, self.stq):
            evaluator.update(PanopticVideo(index, *sides))
        self.tracking.update(
            TrackedVideo(
                index, *(boxes(side, class_agnostic=True, where=name) for side, name in zip(sides, ("truth", "found")))
            )
        )

    def cells(self) -> Iterator[str]:
        veq = self.veq.compute()
        for length in LENGTHS:
            value = veq.get(f"VEQ@{length}")
            yield "-" if value is None else f"{value * self.veq.scale:.1f}"
        numbers = self.tracking.percent(self.tracking.compute())
        yield from (f"{numbers[key]:.1f}" for key in ("IDF1", "AssA"))
        stq = self.stq.compute()
        yield f"{stq['STQ^EN'] * self.stq.scale:.1f}"
        yield str(self.num_ids)


def unpacked(maps: Iterable[bytes]) -> Iterator[np.ndarray]:
    return map(unpack_map, maps)


def sequence(maps: list[bytes]) -> PanopticSequence:
    """Maps as one side of an evaluation."""
    return PanopticSequence([segments_info(ids) for ids in unpacked(maps)], lambda frame: unpack_map(maps[frame]))
