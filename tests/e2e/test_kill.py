"""Every resumable command, killed with SIGKILL at random instants and resumed, gives the result of an uninterrupted run.

ENTITYSAM_KILLS sets the number of kills per command (default 3), ENTITYSAM_KILL_SEED the instants.
"""

import json
import multiprocessing
import os
import random
import shutil
import time

import numpy as np
import pytest
import torch
from PIL import Image
from support.chat_server import KEY, serving
from support.processes import PATIENCE, finish, forked

from entitysam.cli import main
from entitysam.config import load_config, to_dict
from entitysam.data.synthetic.writer import SyntheticSet, write_synthetic
from entitysam.engine.evaluate.run import RunOptions
from entitysam.engine.evaluate.run import run as evaluate
from entitysam.engine.train.run import run as train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the runs are forked"),
]
KILLS = int(os.environ.get("ENTITYSAM_KILLS", "3"))
SEED = int(os.environ.get("ENTITYSAM_KILL_SEED", "0"))
SMALL = ["--model", "tiny_scratch", "--weights", "random", "--image-size", "64", "--device", "cpu", "--quiet"]
SMALL += ["--threshold", "0", "--warmup-frames", "1", "model.num_entities=6", "inference.overlap_threshold=0"]
NAMES = ("person", "dog", "grass")


class EveryName(dict):
    """A name for every image, by its digest."""

    def __contains__(self, digest):
        return True

    def get(self, digest, default=None):
        return NAMES[int(digest, 16) % len(NAMES)]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A clip of 12 frames with detections, a training set, an evaluation set, and a result to be labelled."""
    folder = tmp_path_factory.mktemp("inputs")
    size = {"image_size": (64, 80), "video_size": (48, 80)}
    write_synthetic(
        folder, SyntheticSet(train_images=4, val_images=0, train_videos=0, val_videos=3, val_frames=4, **size)
    )
    frames = folder / "frames"
    frames.mkdir()
    noise = np.random.default_rng(0).integers(60, 120, (48, 80, 3), dtype=np.uint8)
    images, annotations = [], []
    for index in range(12):
        frame = noise.copy()
        box = [4 + 3 * index, 8, 24, 28]
        frame[box[1] : box[1] + box[3], box[0] : box[0] + box[2]] = (230, 40, 40)
        Image.fromarray(frame).save(frames / f"{index:05d}.png")
        images.append({"id": index, "file_name": f"{index:05d}.png"})
        annotations.append({"id": index, "image_id": index, "bbox": box, "score": 0.9, "category_id": 1})
    (folder / "found.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    assert main(["segment", str(frames), "-o", str(folder / "result"), *SMALL]) == 0
    return folder


def segment(*options):
    return lambda inputs, out: main(["segment", str(inputs / "frames"), "-o", str(out), "--resume", *SMALL, *options])


def track(inputs, out):
    words = [
        "--detections",
        inputs / "found.json",
        "--proposals",
        "fast",
        "--weights",
        "random",
        "--model",
        "masa_tiny",
    ]
    return main(["track", *map(str, [inputs / "frames", *words, "-o", out]), "--device", "cpu", "-q", "--resume"])


def label(inputs, out):
    os.environ |= {"OPENAI_API_KEY": KEY, "NO_PROXY": "127.0.0.1", "XDG_CACHE_HOME": str(out.parent / "cache")}
    out.mkdir(parents=True, exist_ok=True)
    address = (inputs / "server").read_text()
    words = ["--labels", ",".join(NAMES), "--base-url", address, "-o", str(out), "-q", "classifier.batch_size=1"]
    return main(["label", str(inputs / "result"), *words])


def train_small(inputs, out):
    values = {
        "model.image_size": 64, "model.num_entities": 6, "criterion.num_points": 128, "train.batch_size": 1,
        "train.log_period": 1, "train.image_period": 0, "train.save_period": 1, "train.tensorboard": "false",
        "train.device": "cpu", "train.amp": "fp32", "data.num_workers": 0, "optim.max_iters": 6,
        "data.dataset.root": inputs, "output_dir": out,
    }  # fmt: skip
    options = [f"{key}={value}" for key, value in values.items()]
    return 0 if train(to_dict(load_config("tiny_scratch_stage1", options)), resume=True) else 1


def evaluate_small(inputs, out):
    windows = "evaluation.evaluators=[{name: veq, windows: [1, 2]}, {name: stq_en}]"
    words = [
        f"evaluation.dataset.root={inputs / 'VIPSeg_720P'}",
        f"output_dir={out}",
        "inference.warmup_frames=1",
        windows,
    ]
    words += ["model=tiny_scratch", "model.image_size=64", "model.num_entities=6", "inference.score_threshold=0"]
    options = RunOptions(weights="random", device="cpu", quiet=True, resume=True, worst=0)
    return 0 if evaluate(to_dict(load_config("eval/vipseg", words)), options) else 1


COMMANDS = {
    "segment": segment(),
    "online": segment("--online"),
    "reid": segment("--reid", "random"),
    "track": track,
    "label": label,
    "train": train_small,
    "eval": evaluate_small,
}


def contents(out):
    """The content of a result by file; of measured times, temporary files and lossy videos nothing."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if path.name == "model_final.pt":
            state = torch.load(path, weights_only=True)["model"]
            found[name] = {key: tensor.numpy().tobytes() for key, tensor in state.items()}
        elif path.name == "result.json":
            found[name] = json.loads(path.read_text())["metrics"]
        elif path.suffix in (".json", ".jsonl", ".png", ".txt") and not path.name.startswith(
            ("run.", "log.", "metrics.", "worst")
        ):
            found[name] = path.read_bytes()
    return found


def serve(address):
    with serving(EveryName(), sides=(1, 4096)) as server:
        temporary = address.with_suffix(".part")
        temporary.write_text(server.base_url)
        temporary.replace(address)
        time.sleep(PATIENCE * 100)


@pytest.mark.parametrize("name", COMMANDS)
def test_killed_and_resumed(name, inputs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("entitysam.inference.resuming.STATE_PERIOD", 2)
    server = None
    if name == "label":
        server = multiprocessing.get_context("fork").Process(target=serve, args=(inputs / "server",), daemon=True)
        server.start()
        while not (inputs / "server").exists():
            time.sleep(0.01)
    work = COMMANDS[name]
    started = time.monotonic()
    assert finish(forked(lambda: work(inputs, tmp_path / "straight" / "out"))) == 0
    duration = time.monotonic() - started
    expected = contents(tmp_path / "straight" / "out")
    assert expected
    instants = random.Random(f"{SEED} {name}")
    tried = killed = bad = 0
    while tried < KILLS:
        out = tmp_path / f"try{tried}" / "out"
        process = forked(lambda out=out: work(inputs, out))
        time.sleep(instants.uniform(0, duration))
        process.kill()
        process.join()
        killed += process.exitcode == -9
        code = finish(forked(lambda out=out: work(inputs, out)))
        same = code == 0 and contents(out) == expected
        tried += 1
        bad += not same
        if same:
            shutil.rmtree(out.parent)
    if server is not None:
        server.kill()
    with capsys.disabled():
        print(f"\n{name}: {tried} tried, {killed} killed before their end, {tried - bad} identical, {bad} bad")
    assert bad == 0, f"see {tmp_path}"
