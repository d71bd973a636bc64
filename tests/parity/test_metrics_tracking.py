"""HOTA, IDF1, MOTA, TETA and the BDD100K pipeline against the numbers of the reference programs (golden/metrics)."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest

from entitysam.evaluation import TETA, BDDTracking, BoxTracking, EvaluationError, TrackedVideo, Tracks, teta
from entitysam.evaluation.box_tracking import AGNOSTIC

CASES = sorted((Path(__file__).parents[1] / "golden" / "metrics" / "tracking").glob("*.json"))
assert len(CASES) == 35


@functools.cache
def load(path):
    case = json.loads(path.read_text())
    videos = [
        TrackedVideo(
            video["name"],
            Tracks.from_rows(video["gt"], ignore=[row[7] == 1 for row in video["gt"]]),
            Tracks.from_rows(video["pred"]),
        )
        for video in case["videos"]
    ]
    return case, videos


def close(value):
    return pytest.approx(float(value), rel=1e-9, abs=1e-11, nan_ok=True)


def evaluate(evaluator, videos):
    for video in videos:
        evaluator.update(video)
    return evaluator


@pytest.fixture(params=CASES, ids=lambda path: path.stem)
def case(request):
    return load(request.param)


def check_block(ours, expected):
    for block in ("HOTA_mean", "Identity", "CLEAR"):
        for name, value in expected[block].items():
            assert ours[name] == close(value), name
    assert ours["HOTA@0.05"] == close(expected["HOTA_0"])


def test_box_tracking(case):
    case, videos = case
    expected, evaluator = case["expected"]["trackeval"], BoxTracking(case["categories"])
    if "raises" in expected:
        with pytest.raises(EvaluationError, match="video vid0, prediction, frame 2: id 7 has two boxes"):
            evaluate(evaluator, videos)
        return
    evaluate(evaluator, videos)
    result, records = evaluator.compute(), list(evaluator.records.values())
    check_block({name: result[f"{name}-agnostic"] for name in evaluator.numbers([], [])}, expected["class_agnostic"])
    check_block({name: result[f"{name}-pooled"] for name in evaluator.numbers([], [])}, expected["det_averaged"])
    for category, block in expected["per_class"].items():
        check_block(evaluator.numbers(records, [int(category)]), block)
    averaged = expected["class_averaged"]
    for block in ("HOTA_mean", "Identity", "CLEAR"):
        for name in ("HOTA", "DetA", "AssA", "LocA", "IDF1", "IDP", "MOTA", "MOTP", "CLR_Re"):
            if name in averaged[block]:
                assert result[name] == close(averaged[block][name])
    for video_id, values in expected["class_agnostic"]["per_video"].items():
        ours = evaluator.numbers([evaluator.records[video_id]], [AGNOSTIC])
        if not ours["CLR_TP"] + ours["CLR_FN"]:  # without annotations the reference leaves the video's MOTA at 0
            ours["MOTA"] = 0.0
        assert {name: ours[name] for name in values} == {name: close(value) for name, value in values.items()}


PROTOCOLS = {
    "teta_tao": {},
    "teta_tao_majority_vote": {"majority_vote": True},
    "teta_coco": {"exhaustive": True},
}


@pytest.mark.parametrize("block", PROTOCOLS)
def test_teta(case, block):
    case, videos = case
    expected, evaluator = case["expected"][block], TETA(case["categories"], **PROTOCOLS[block])
    if expected.get("raises") == "TrackEvalException":
        with pytest.raises(EvaluationError, match="video vid0, prediction, frame 2: id 7 has two boxes"):
            evaluate(evaluator, videos)
        return
    result = evaluate(evaluator, videos).compute()
    if "raises" in expected:  # nothing predicted, nothing annotated: undefined
        assert all(np.isnan(value) for value in result.values())
        return
    assert {name: close(value) for name, value in expected["average"].items() if name != "counts"} == result
    names = {category["id"]: category["name"] for category in case["categories"]}
    counts = evaluator.per_category(list(evaluator.records.values()))
    assert {names[category] for category in counts} == set(expected["per_class"])
    for category, row in counts.items():
        reference = expected["per_class"][names[category]]
        for name, value in teta.numbers(row).items():
            assert np.mean(value) == close(reference[name]), name
        for name, value in reference["counts"].items():
            assert np.array_equal(row[name.lower()], np.broadcast_to(value, row[name.lower()].shape)), name


def test_bdd(case):
    case, videos = case
    evaluator = BDDTracking(case["categories"])
    if "raises" in case["expected"]["trackeval"]:
        with pytest.raises(EvaluationError, match="video vid0, prediction, frame 2: id 7 has two boxes"):
            evaluate(evaluator, videos)
        return
    result = evaluate(evaluator, videos).compute()
    for program, expected in case["expected"]["bdd"].items():
        table = evaluator.table(list(evaluator.records.values()), program)
        for metric, row in expected.items():
            if metric.startswith("m"):
                assert result[metric] == close(row), metric
                continue
            for name, value in row.items():
                assert table[metric][name] == close(value), (metric, name)


def test_results_do_not_depend_on_merging_and_order():
    case, videos = load(next(path for path in CASES if path.stem == "rand_four_videos"))
    for make in (BoxTracking, TETA, BDDTracking):
        whole, first, second = (
            evaluate(make(case["categories"]), share) for share in (videos, videos[:1:-1], videos[:2])
        )
        first.merge(second)
        assert repr(first.compute()) == repr(whole.compute())
        assert repr(first.per_video()) == repr(whole.per_video())
