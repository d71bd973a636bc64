"""Mask-tube AP, AP^e and exclusive masks against the numbers of the reference evaluators (golden/metrics)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from entitysam.evaluation import (
    OVISAP,
    AgnosticYouTubeVISAP,
    EntityAP,
    Instance,
    InstanceVideo,
    YouTubeVISAP,
    make_exclusive,
)
from entitysam.evaluation.average_precision import best_detections
from entitysam.evaluation.tube_ap import tube_iou
from entitysam.ops import rle_encode

GOLDEN = Path(__file__).parents[1] / "golden" / "metrics"
TUBES = sorted((GOLDEN / "ytvis").glob("*.json"))
IMAGES = sorted((GOLDEN / "entityseg").glob("*.json"))
EXCLUSIVE = sorted((GOLDEN / "entityseg_nonoverlap").glob("*.json"))
assert (len(TUBES), len(IMAGES), len(EXCLUSIVE)) == (32, 22, 5)
NAMES = {
    name: name for name in ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
}
OCCLUSION = {
    f"{kind}-{level}": f"{kind}_occ_{level}" for kind in ("AP", "AR") for level in ("light", "medium", "heavy")
}


def close(value):
    return pytest.approx(float("nan") if value == -1 else value, rel=1e-9, abs=1e-12, nan_ok=True)


def unpack(bits, height, width):
    return np.unpackbits(bits, axis=-1)[..., : height * width].reshape(*bits.shape[:-1], height, width)


def instance(row, frames, present):
    masks = [rle_encode(mask) if here else None for mask, here in zip(frames, present)]
    return Instance(
        row["category_id"],
        masks,
        score=row.get("score", 1.0),
        crowd=bool(row.get("iscrowd", 0)),
        area=row.get("area"),
        occlusion=row.get("occlusion"),
        annotation_id=row.get("id", 1),
    )


def load_tubes(path):
    case, arrays = json.loads(path.read_text()), np.load(path.with_suffix(".npz"))
    videos = []
    for video in case["videos"]:
        sides = [
            [
                instance(row, unpack(arrays[row["key"]], video["height"], video["width"]), row["present"])
                for row in case[side]
                if row["video_id"] == video["id"]
            ]
            for side in ("gt", "dt")
        ]
        videos.append(InstanceVideo(video["id"], *sides))
    return case, videos


def load_images(path):
    case, arrays = json.loads(path.read_text()), np.load(path.with_suffix(".npz"))
    videos = []
    for image in case["images"]:
        sides = [
            [
                instance(row, [unpack(arrays[row["key"]], image["height"], image["width"])], [True])
                for row in case[side]
                if row["image_id"] == image["id"]
            ]
            for side in ("gt", "dt")
        ]
        videos.append(InstanceVideo(image["id"], *sides))
    return case, videos


def evaluate(evaluator, videos):
    for video in videos:
        evaluator.update(video)
    return evaluator


@pytest.mark.parametrize("path", TUBES, ids=lambda path: path.stem)
def test_tube_ap(path):
    case, videos = load_tubes(path)
    categories = [{"id": category} for category in case["categories"]]
    settings = {
        "ytvoseval": (YouTubeVISAP, "", NAMES),
        "ytvoseval_useCats0": (AgnosticYouTubeVISAP, "^ca", NAMES),
        "oviseval": (OVISAP, "", NAMES | OCCLUSION),
    }
    for block, expected in case["expected"].items():
        make, mark, names = settings[block]
        evaluator = evaluate(make(categories), videos)
        result = {name.replace(mark, ""): value for name, value in evaluator.compute().items()}
        if "raises" in expected:  # an empty result list: undefined
            assert all(np.isnan(value) for value in result.values())
            continue
        assert set(names) == set(result)
        for ours, theirs in names.items():
            assert result[ours] == close(expected[theirs]), (block, ours)
        rows = {str(category): values for category, values in evaluator.per_category().items()}
        defined = {c: e["AP_per_iou"] for c, e in expected["per_category"].items() if e["AP"] not in (-1, "NaN")}
        assert set(rows) == set(defined)
        for category, reference in defined.items():
            assert rows[category].tolist() == [close(value) for value in reference]


@pytest.mark.parametrize("path", TUBES, ids=lambda path: path.stem)
def test_tube_iou(path):
    case, videos = load_tubes(path)
    of_video = {video.video_id: video for video in videos}
    for key, expected in case["expected"]["ytvoseval"].get("ious", {}).items():
        video_id, category = map(int, key.split(","))
        video = of_video[video_id]
        detections = best_detections([i for i in video.prediction if i.category_id == category])
        truth = [i for i in video.truth if i.category_id == category]
        ours = tube_iou(detections, truth)
        assert ours.reshape(-1).tolist() == [close(value) for row in expected for value in row]


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)
def test_entity_ap(path):
    case, videos = load_images(path)
    evaluator, expected = evaluate(EntityAP(), videos), case["expected"]
    result = {name.replace("^e", ""): value for name, value in evaluator.compute().items()}
    if "raises" in expected:
        assert all(np.isnan(value) for value in result.values())
        return
    for name in NAMES:
        assert result[name] == close(expected[name]), name
    if expected["AP"] != -1:
        assert evaluator.per_category()[-1].tolist() == [close(value) for value in expected["AP_per_iou"]]


@pytest.mark.parametrize("path", EXCLUSIVE, ids=lambda path: path.stem)
def test_exclusive_masks(path):
    case, arrays = json.loads(path.read_text()), np.load(path.with_suffix(".npz"))
    logits = torch.from_numpy(arrays["mask_logits"])
    masks, scores = make_exclusive(logits, torch.from_numpy(arrays["class_logits"]))
    assert np.array_equal(masks.numpy(), unpack(arrays["masks"], *logits.shape[1:]).astype(bool))
    assert scores.tolist() == pytest.approx(case["expected"]["scores"], rel=2e-6, abs=1e-9)
    assert masks.sum((1, 2)).tolist() == case["expected"]["areas"]


def test_results_do_not_depend_on_merging_and_order():
    case, videos = load_tubes(GOLDEN / "ytvis" / "rand_ties.json")
    categories = [{"id": category} for category in case["categories"]]
    for make in (YouTubeVISAP, AgnosticYouTubeVISAP):
        whole, first = evaluate(make(categories), videos), evaluate(make(categories), videos[1:])
        first.merge(evaluate(make(categories), videos[:1]))
        assert repr(first.compute()) == repr(whole.compute())
        assert repr(first.per_video()) == repr(whole.per_video())
