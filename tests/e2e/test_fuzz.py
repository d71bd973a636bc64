"""Seeded mutations of valid inputs in readers and commands: a line of error at most, never a traceback, a signal, a hang
or unbounded memory."""

import importlib
import json
import os
import random
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from support.coco_layout import write_coco
from support.fuzz import mutate_bytes, mutate_data, mutate_json, run_limited
from support.video_layouts import write_entityseg, write_vipseg, write_ytvis

from entitysam import cli
from entitysam.ops import rle_encode

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, and limits memory by RLIMIT_AS"),
]
FRAMES, SIZE = 4, (24, 40)
INPUTS = int(os.environ.get("FUZZ_INPUTS", "60"))  # of every kind
COMMON = ["--association", "iou", "-q"]


def tool(name, *words):
    """A tool of this repository, as a command."""
    module = importlib.import_module(name)

    def command():
        sys.argv = [name, *map(str, words)]
        return module.main()

    return command


def track(source, out, *words):
    return lambda: cli.main(["track", str(source), "-o", str(out), *COMMON, *map(str, words)])


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A folder of images, a video, a GIF, and detections of them in four formats."""
    import av

    folder = tmp_path_factory.mktemp("clip")
    (folder / "frames").mkdir()
    rng = np.random.default_rng(0)
    frames = [np.kron(rng.integers(0, 255, (3, 5, 3), np.uint8), np.ones((8, 8, 1), np.uint8)) for _ in range(FRAMES)]
    images = [Image.fromarray(frame) for frame in frames]
    for index, image in enumerate(images):
        image.save(folder / "frames" / f"{index:05d}.png")
    images[0].save(folder / "clip.gif", save_all=True, append_images=images[1:])
    with av.open(str(folder / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", 10)
        stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())
    mask = np.zeros(SIZE, bool)
    mask[4:12, 5:15] = True
    shape, polygon = rle_encode(mask), [[5, 4, 15, 4, 15, 12, 5, 12]]
    listed = [
        {"id": i, "image_id": i, "bbox": [5, 4, 10, 8], "segmentation": [shape, polygon][i % 2], "score": 0.9, "category_id": 1}
        for i in range(FRAMES)
    ]  # fmt: skip
    entries = [
        {"id": i, "file_name": f"{i:05d}.png", "height": SIZE[0], "width": SIZE[1], "frame_id": i}
        for i in range(FRAMES)
    ]
    coco = {"images": entries, "annotations": listed, "categories": [{"id": 1, "name": "a"}]}
    label = {"id": "1", "category": "a", "score": 0.9, "box2d": {"x1": 1, "y1": 2, "x2": 9, "y2": 9}, "rle": shape}
    scalabel = [
        {"name": f"{i:05d}.png", "videoName": "frames", "frameIndex": i, "labels": [label]} for i in range(FRAMES)
    ]
    results = [{**entry, "segmentation": shape} for entry in listed]
    for name, contents in (("coco", coco), ("results", results), ("scalabel", scalabel)):
        (folder / f"{name}.json").write_text(json.dumps(contents))
    (folder / "mot.txt").write_text("".join(f"{i + 1},-1,5,4,10,8,0.9\n" for i in range(FRAMES)))
    return folder


def detections(clip, place, rng):
    name = rng.choice(["coco.json", "coco.json", "results.json", "scalabel.json", "mot.txt"])
    path = shutil.copy(clip / name, place / name)
    if name == "mot.txt":
        Path(path).write_bytes(mutate_bytes(Path(path).read_bytes(), rng))
    else:
        mutate_json(Path(path), rng)
    return track(clip / "frames", place / "out", "--detections", path)


def videos(clip, place, rng):
    name = rng.choice(["clip.mp4", "clip.gif", "frames"])
    if name == "frames":
        shutil.copytree(clip / "frames", place / name)
        spoiled = place / name / f"{rng.randrange(FRAMES):05d}.png"
    else:
        spoiled = Path(shutil.copy(clip / name, place / name))
    spoiled.write_bytes(mutate_bytes(spoiled.read_bytes(), rng))
    return track(place / name, place / "out", "--detections", clip / "mot.txt")


def write_instances(root):
    """EntitySeg's small set also in the layout of COCO instances."""
    write_entityseg(root)
    (root / "train2017").symlink_to(root / "images/entity_01_11580")
    shutil.copy(root / "annotations/entityseg_val_lr.json", root / "annotations/instances_train2017.json")
    return root


SETS = {
    "vipseg": (write_vipseg, "val", "panoptic_gt_VIPSeg_val.json"),
    "ytvis_2019": (write_ytvis, "valid", "valid.json"),
    "coco": (write_coco, "train2017", "annotations/panoptic_train2017.json"),
    "instances": (write_instances, "train2017", "annotations/instances_train2017.json"),
}


def spoiled_set(place, rng, names):
    name = rng.choice(names)
    write, split, index = SETS[name]
    root = write(place / "data")
    if rng.random() < 0.75:
        mutate_json(root / index, rng)
    else:
        images = sorted(path for path in root.rglob("*.*") if path.suffix in (".png", ".jpg"))
        image = rng.choice(images)
        image.write_bytes(mutate_bytes(image.read_bytes(), rng))
    return name, root, split


def checks(clip, place, rng):
    name, root, split = spoiled_set(place, rng, [*SETS, "instances"])
    return tool("prepare_data", "check", name, "--root", root, "--split", split, "--workers", 0)


def ground_truth(clip, place, rng):
    name, root, _ = spoiled_set(place, rng, ["vipseg", "ytvis_2019"])
    words = [f"evaluation.dataset.root={root}", f"output_dir={place / 'out'}"]
    if name == "vipseg":
        words.append("evaluation.evaluators=[{name: veq, windows: [1, 2]}, {name: stq_en}]")
    config = {"vipseg": "eval/vipseg", "ytvis_2019": "eval/ytvis_entity"}[name]
    return tool("eval_net", "--method", "grid:cells=2", "--quiet", "--worst", 0, "--config", config, *words)


def configs(clip, place, rng):
    path = place / "config.yaml"
    data = {
        "defaults": ["/model/tiny_scratch", "_self_"],
        "model": {"image_size": 64, "num_entities": 5},
        "data": {"dataset": {"name": "coco_panoptic", "root": "x"}},
        "evaluation": {"dataset": {"name": "vipseg", "root": "x"}, "evaluators": [{"name": "veq", "windows": [1, 2]}]},
    }
    text = yaml.safe_dump(mutate_data(data, rng), sort_keys=False)
    if rng.random() < 0.1:
        text += "a: &a [x]\n" + "".join(
            f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi")
        )
    raw = text.encode()
    path.write_bytes(raw if rng.random() < 0.8 else mutate_bytes(raw, rng))
    return tool(rng.choice(["eval_net", "train_net"]), "--config", path, "--print-config")


def checkpoints(clip, place, rng):
    source = Path(__file__).parents[2] / "checkpoints/masa_tiny.safetensors"
    raw = source.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    action = rng.random()
    if action < 0.7:
        text = json.dumps(mutate_data(header, rng)).encode()
        raw = len(text).to_bytes(8, "little") + text + raw[8 + size :]
    else:
        raw = mutate_bytes(raw[: 8 + size], rng) + raw[8 + size :]
    path = place / "spoiled.safetensors"
    path.write_bytes(raw)
    words = ["track", str(clip / "frames"), "-o", str(place / "out"), "-q", "--weights", str(path), "--max-frames", "1"]
    return lambda: cli.main([*words, "--detections", str(clip / "mot.txt")])


KINDS = {
    "detections": detections,
    "videos": videos,
    "checks": checks,
    "ground truth": ground_truth,
    "configs": configs,
    "checkpoints": checkpoints,
}


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
def test_mutated_inputs_give_a_result_or_one_line(kind, clip, tmp_path, capsys):
    import entitysam.cli.track
    import entitysam.engine.evaluate.run
    import entitysam.masa.video  # noqa: F401  (imported once: every input runs in a fork)

    victim = tmp_path / "victim"
    victim.write_text("mine")
    bad, count = {}, Counter()
    for seed in range(INPUTS):
        place = tmp_path / "inner" / str(seed)
        place.mkdir(parents=True)
        problem = run_limited(KINDS[kind](clip, place, random.Random(f"{kind} {seed}")), tmp_path / "log.txt")
        count["bad" if problem else "clean"] += 1
        if problem:
            bad[seed] = problem
            with capsys.disabled():
                print(f"\n{kind} {seed}: {problem.strip().splitlines()[-1][:300]}", flush=True)
        shutil.rmtree(place)
    with capsys.disabled():
        print(f"\n{kind}: {INPUTS} tried, {count['clean']} clean, {count['bad']} bad")
    assert victim.read_text() == "mine"
    assert not bad, "\n\n".join(f"{kind} {seed}: {problem}" for seed, problem in bad.items())
