"""Runs `entitysam segment` over a long clip in this process and prints what it used, as JSON.

    python soak.py CLIP OUT FRAMES [option ...]

`peak_mib`: resident memory; `ms`: CPU time per frame of the network's loop and of drawing and writing, lower decile (other
processes disturb the rest) of 200 frames up to frame 250 and up to the last; `scratch_mib`: the most that lay on the disk beside the results, checked every 50 frames.
"""

import json
import os
import resource
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path

from entitysam.cli import main
from entitysam.inference.segmenter import VideoSegmenter
from entitysam.io.writers.segments import ResultWriter

SMALL = ["--model", "tiny_scratch", "--weights", "random", "--image-size", "64", "--device", "cpu", "--quiet"]
SMALL += ["--threshold", "0", "--warmup-frames", "0", "model.num_entities=6", "inference.overlap_threshold=0"]


def size_of(*folders):
    """MiB of all files."""
    return sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file()) / 2**20


class Clock:
    """CPU time between two calls of a method of a class."""

    def __init__(self, owner, name, on_call=lambda count: None):
        self.times = []
        original = getattr(owner, name)

        def called(*arguments, **options):
            self.times.append(time.process_time())
            on_call(len(self.times))
            return original(*arguments, **options)

        setattr(owner, name, called)

    def at(self, end):
        steps = [b - a for a, b in zip(self.times, self.times[1:])]
        return round(1000 * sorted(steps[max(end - 200, 0) : end])[20], 3)


def run(clip, out, frames, options):
    scratch = [0.0]

    def look(count):
        if count % 50 == 0:
            scratch[0] = max(scratch[0], size_of(out / ".resume", Path(tempfile.gettempdir())))

    clocks = {"segment": Clock(VideoSegmenter, "_passes", look), "write": Clock(ResultWriter, "add", look)}
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        code = main(["segment", clip, "-o", str(out), "--max-frames", str(frames), *SMALL, *options])
    unit = 1024 if sys.platform == "linux" else 2**20
    return {
        "code": code,
        "frames": len(clocks["write"].times),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1),
        "ms": {name: [clock.at(250), clock.at(len(clock.times) - 1)] for name, clock in clocks.items()},
        "scratch_mib": round(scratch[0], 2),
        "result_mib": round(size_of(out), 2),
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        tempfile.tempdir = temporary  # of this run alone
        print(json.dumps(run(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])))
