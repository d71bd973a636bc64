"""What `--entities N` costs: runs of the network and time per frame, in total and per entity. Example:
python tools/benchmark.py entities --weights checkpoints/entitysam_tiny.safetensors --frames 3
"""

import argparse
import time

import torch

from entitysam.cli.shared.models import open_model
from entitysam.data.synthetic.long import LongVideo
from entitysam.inference.segmenter import VideoSegmenter
from entitysam.inference.tiles import grid_for, stream_tiles


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", default="tiny", help="of EntitySAM: a file or a name")
    parser.add_argument("--frames", type=int, default=3, help="timed, after one that is not")
    parser.add_argument("--queries", type=float, nargs="+", default=[1, 2, 4, 6], help="N in units of the queries")
    parser.add_argument("--device", default="cpu")


def run(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    model = open_model(arguments.weights, None, arguments.device, {}).model
    segmenter, size = VideoSegmenter(model, warmup_frames=0), (384, 640)
    frames = [LongVideo(0, 100, size).frame(40 + index)[0] for index in range(arguments.frames + 1)]
    print("| --entities | tiles | runs per frame | ms per frame | ms per entity |\n| ---: | --- | ---: | ---: | ---: |")
    for factor in arguments.queries:
        count = round(factor * segmenter.num_queries)
        grid = grid_for(count, segmenter.num_queries, size)
        whole = grid == (1, 1)
        stream = segmenter.stream(frames) if whole else stream_tiles(segmenter, frames, grid, second_pass=True)
        times = []
        for _ in stream:
            times.append(time.process_time())
        spent = 1000 * (times[-1] - times[0]) / arguments.frames
        tiles = "the frame" if whole else f"{grid[0]}x{grid[1]} and a second pass"
        runs = 1 if whole else grid[0] * grid[1] + 1
        print(f"| {count} | {tiles} | {runs} | {spent:.0f} | {spent / count:.1f} |", flush=True)
