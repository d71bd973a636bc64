"""MASA trained as a user trains it, on a handful of synthetic images; and the shipped weights, where they are."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from entitysam.checkpoint import load_weights, read_weights
from entitysam.config import load_config, to_dict
from entitysam.data.synthetic.returning import new_at_return, render_returning
from entitysam.data.synthetic.writer import SyntheticSet, write_synthetic
from entitysam.data.training.proposals import Proposals
from entitysam.engine.build import build_model
from entitysam.engine.evaluate.run import RunOptions
from entitysam.engine.evaluate.run import run as evaluate
from entitysam.engine.methods.masa import open_masa
from entitysam.engine.train.run import run
from entitysam.masa.reid import Reidentifier
from entitysam.ops import mask_to_box, rgb_to_ids, rle_encode
from entitysam.structures import VideoSegments

ROOT = Path(__file__).parents[2]
WEIGHTS = ROOT / "checkpoints" / "masa_tiny.safetensors"
OPTIONS = [
    "train.batch_size=2", "train.log_period=1", "train.image_period=3", "train.save_period=2", "train.tensorboard=false",
    "train.device=cpu", "data.num_workers=0", "optim.max_iters=3", "model.image_size=64",
]  # fmt: skip


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic")
    plan = SyntheticSet(
        train_images=6, val_images=1, train_videos=1, val_videos=3, val_frames=9, image_size=(64, 80), video_size=(192, 320)
    )  # fmt: skip
    write_synthetic(folder, plan, workers=1)
    return folder


def train(synthetic, output, *options, resume=False) -> list[float]:
    words = [*OPTIONS, f"data.dataset.root={synthetic}", f"output_dir={output}", *options]
    assert run(to_dict(load_config("masa_tiny", words)), resume)
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [row["total"] for row in rows if "total" in row]


def test_training_resumes_bit_for_bit_and_gives_a_model(synthetic, tmp_path):
    whole = train(synthetic, tmp_path / "whole")
    assert len(whole) == 3
    assert list((tmp_path / "whole/images").glob("clip_*.png"))
    (tmp_path / "again").mkdir()
    for name in ("checkpoint_0000002.pt", "metrics.jsonl"):
        (tmp_path / "again" / name).write_bytes((tmp_path / "whole" / name).read_bytes())
    assert train(synthetic, tmp_path / "again", resume=True)[-1] == whole[-1]

    state, config = read_weights(tmp_path / "whole/model_final.pt")
    model = build_model(config)
    report = load_weights(model, state)
    assert report.kind == "MASA"
    assert report.untouched == []
    features = model.encode(torch.zeros(3, 40, 60))
    assert model.embed(features, torch.tensor([[1.0, 2, 30, 40]])).shape == (1, 256)


def test_training_on_overlapping_proposals(synthetic, tmp_path):
    """The synthetic images with boxes of halves and wholes as masks: any COCO instances file will do."""
    annotations = []
    images = json.loads((synthetic / "annotations/panoptic_train2017.json").read_text())["images"]
    for image in images:
        for share in (1.0, 0.5):
            mask = np.zeros((image["height"], image["width"]), bool)
            mask[: int(image["height"] * share)] = True
            annotations.append({
                "id": len(annotations) + 1, "image_id": image["id"], "category_id": 1, "segmentation": rle_encode(mask),
            })  # fmt: skip
    contents = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]}
    (synthetic / "annotations/instances_train2017.json").write_text(json.dumps(contents))
    assert len(Proposals(synthetic, "train2017").load(0).outlines) == 2
    losses = train(
        synthetic, tmp_path, "data.dataset.name=proposals", "data.mapper.photometric=0.5", "optim.max_iters=1"
    )
    assert np.isfinite(losses).all()


def recognised(model, synthetic, step: int) -> float:
    """Share of entities whose most similar box `step` frames later is their own, by cosine; boxes are the truth's."""
    hits = []
    for folder in sorted((synthetic / "VIPSeg_720P/images").glob("val*")):
        frames = sorted(folder.iterdir())
        seen = [boxes_and_embeddings(model, synthetic, frames[t]) for t in (0, step)]
        (first, a), (later, b) = seen
        best = (F.normalize(a, dim=1) @ F.normalize(b, dim=1).T).argmax(1)
        hits += [later[best[i]] == number for i, number in enumerate(first) if number in later]
    return float(np.mean(hits))


def boxes_and_embeddings(model, synthetic, frame: Path):
    from PIL import Image

    colours = synthetic / "VIPSeg_720P/panomasksRGB" / frame.parent.name / f"{frame.stem}.png"
    ids = rgb_to_ids(np.asarray(Image.open(colours).convert("RGB")))
    numbers = [int(n) for n in np.unique(ids) if n and (ids == n).sum() > 100]
    x, y, width, height = np.array([mask_to_box(ids == n) for n in numbers]).T
    image = torch.from_numpy(np.array(Image.open(frame).convert("RGB"))).permute(2, 0, 1)
    with torch.no_grad():
        boxes = torch.from_numpy(np.stack([x, y, x + width, y + height], axis=1)).float()
        return numbers, model.embed(model.encode(image), boxes)


@pytest.mark.skipif(not WEIGHTS.is_file(), reason=f"{WEIGHTS.name} is not there: train configs/masa_tiny.yaml")
def test_shipped_weights_recognise_entities(synthetic):
    torch.manual_seed(0)
    config = read_weights(WEIGHTS)[1]
    untrained, trained = build_model(config), build_model(config)
    load_weights(trained, WEIGHTS)
    for step in (1, 8):
        assert recognised(trained, synthetic, step) > recognised(untrained, synthetic, step)


@pytest.mark.skipif(not WEIGHTS.is_file(), reason=f"{WEIGHTS.name} is not there: train configs/masa_tiny.yaml")
def test_shipped_weights_beat_overlap_and_untrained_ones_over_large_steps(synthetic, tmp_path):
    """What EVAL.md reports, in small: every 4th frame, the annotated boxes as detections."""

    def scores(name, weights="", *words):
        words = [f"evaluation.dataset.root={synthetic}/VIPSeg_720P", "evaluation.dataset.step=4", *words]
        config = load_config("eval/synthetic_tracking", [*words, f"output_dir={tmp_path / name}"])
        assert evaluate(to_dict(config), RunOptions(weights=weights, device="cpu", quiet=True, worst=0))
        return json.loads((tmp_path / name / "result.json").read_text())["metrics"]

    trained = scores("trained", str(WEIGHTS))
    others = [scores("iou", "", "evaluation.tracker.association=iou"), scores("untrained", "random")]
    for other in others:
        assert trained["AssocA"] > other["AssocA"] + 3
        assert trained["IDF1"] > other["IDF1"] + 3


@pytest.mark.skipif(not WEIGHTS.is_file(), reason=f"{WEIGHTS.name} is not there: train configs/masa_tiny.yaml")
def test_shipped_weights_give_returning_entities_their_old_ids():
    """Perfect masks whose ids change at every return: the frames stay as they were, the ids get right."""
    frames, truth = render_returning((0, 9, 0), 24)[:2]
    broken = new_at_return(truth)
    count = broken.max()
    assert count > len(np.unique(truth[truth > 0]))  # somebody left and returned
    segmented = VideoSegments.of(broken, np.ones(count))
    merged = np.stack(list(Reidentifier(open_masa(WEIGHTS)).merge(frames, segmented).iter_ids()))
    pairs = lambda maps: len(np.unique(np.stack([truth, maps]).reshape(2, -1), axis=1).T)  # noqa: E731
    assert pairs(merged) < pairs(broken)  # fewer ids per entity ...
    assert all(len(np.unique(truth[merged == n])) == 1 for n in np.unique(merged[merged > 0]))  # ... and none shared
