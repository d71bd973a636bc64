"""Two worker processes that evaluate small videos with a method that fails or takes long; module level, to be spawned."""

import datetime
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from support.video_layouts import id_maps

from entitysam import distributed
from entitysam.classification.classifier import ClassifierError
from entitysam.data.evaluation.vipseg import VIPSegVideos
from entitysam.engine.evaluate.loop import predict_and_measure
from entitysam.engine.evaluate.run import start_records
from entitysam.engine.formats.panoptic import PanopticFormat
from entitysam.evaluation import build_evaluators
from entitysam.structures import VideoSegments

MAPS = np.unique(id_maps(), return_inverse=True)[1].reshape(id_maps().shape)  # entities 1..3, 0 = nothing
ERRORS = {"classifier": ClassifierError("the server refuses the key"), "device": RuntimeError("CUDA error: assertion")}


class Method:
    """The ground truth; on worker 1 after a pause, or an error instead."""

    def __init__(self, failing, pause):
        self.failing, self.pause = failing, pause

    def segment(self, frames, out_size):
        count = sum(1 for _ in frames)
        if distributed.rank() == 1:
            time.sleep(self.pause)
            if self.failing:
                raise ERRORS[self.failing]
        return VideoSegments.of(MAPS[:count], [0.9, 0.8, 0.7])


SCENARIOS = {  # error of worker 1, its pause per video in seconds
    "long": ("", 2.0),
    "classifier": ("classifier", 0.0),
    "device": ("device", 0.0),
}


def evaluate(root, out, timeout):
    """One worker of an evaluation per scenario, in a group whose collectives time out; outcomes go to OUT/<rank>.json."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=timeout))
    dataset, outcomes = VIPSegVideos(root), {}
    for name, (failing, pause) in SCENARIOS.items():
        folder = Path(out, name)
        folder.mkdir(exist_ok=True)
        started = time.monotonic()
        try:
            records = start_records(folder, {}, resume=False)
            evaluators = build_evaluators([{"name": "veq", "windows": [1]}], categories=dataset.categories)
            prediction_format = PanopticFormat(folder, dataset, True)
            method = Method(failing, pause)
            result = predict_and_measure(dataset, method, prediction_format, evaluators, records, quiet=True)
            outcomes[name] = {"VEQ": result.metrics["VEQ"], "failures": len(result.failures)}
        except Exception as error:
            outcomes[name] = {"error": type(error).__name__, "message": str(error)}
        outcomes[name]["seconds"] = time.monotonic() - started
    Path(out, f"{os.environ['RANK']}.json").write_text(json.dumps(outcomes))
    distributed.SharedWork().wait()
    dist.destroy_process_group()


def finish_last_and_leave(folder):
    """Worker 1 waits until its polls are a second apart; then worker 0 finishes, and ends without any clean-up."""
    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=30))
    work = distributed.SharedWork()
    if distributed.rank() == 0:
        time.sleep(1.6)
    work.wait()
    Path(folder, os.environ["RANK"]).touch()
    if distributed.rank() == 0:
        os._exit(0)
    dist.destroy_process_group()
