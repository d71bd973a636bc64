"""VEQ, VPQ, STQ^EN and STQ against the numbers of the reference evaluators (golden/metrics/vipseg)."""

import functools
import json
import random
from pathlib import Path

import numpy as np
import pytest

from entitysam.evaluation import STQ, VEQ, VPQ, EntitySTQ, EvaluationError, PanopticSequence, PanopticVideo
from entitysam.evaluation.tube_pq import TubeCounts

CASES = sorted((Path(__file__).parents[1] / "golden" / "metrics" / "vipseg").glob("*.json"))
assert len(CASES) == 51


@functools.cache
def load(path):
    """The case's json and its videos."""
    case, arrays = json.loads(path.read_text()), np.load(path.with_suffix(".npz"))
    videos = []
    for video in case["videos"]:
        index = video["index"]
        truth = PanopticSequence(video["gt_segments"], arrays[f"gt_{index}"].__getitem__)
        prediction = None
        if video["pred_segments"] is not None:
            prediction = PanopticSequence(video["pred_segments"], arrays[f"pred_{index}"].__getitem__)
        videos.append(PanopticVideo(video["video_id"], truth, prediction))
    return case, videos


def close(value, rel=1e-9):
    return pytest.approx(float(value), rel=rel, abs=1e-12, nan_ok=True)


def evaluate(evaluator, videos):
    for video in videos:
        evaluator.update(video)
    return evaluator


def evaluate_expecting(evaluator, videos, expected):
    """Runs the evaluator; None where it stopped, as the reference did."""
    if expected.get("raises", "ZeroDivisionError") == "ZeroDivisionError":
        return evaluate(evaluator, videos)
    with pytest.raises(EvaluationError, match="video"):
        evaluate(evaluator, videos)
    return None


@pytest.fixture(params=CASES, ids=lambda path: path.stem)
def case(request):
    return load(request.param)


def test_veq(case):
    case, videos = case
    expected = case["expected"]["veq"]
    evaluator = evaluate_expecting(VEQ(), videos, expected)
    if evaluator is None:
        return
    result = evaluator.compute()
    for ours, theirs in (("VEQ", "VEQ"), ("VEQ-SQ", "VEQ_SQ"), ("VEQ-RQ", "VEQ_RQ")):
        assert result[ours] == close(expected[theirs])
    total = TubeCounts.total(list(evaluator.records.values()), 5, 1)
    for row, window in enumerate(evaluator.windows):
        reference = expected["windows"][str(window)]
        assert result[f"VEQ@{window}"] == close(reference["VEQ"])
        assert total.iou_sum[row, 0] == close(reference["iou_sum"])
        assert [int(counts[row, 0]) for counts in (total.tp, total.fp, total.fn)] == [
            reference[name] for name in ("tp", "fp", "fn")
        ]


def test_vpq(case):
    case, videos = case
    expected = case["expected"]["vpq"]
    evaluator = evaluate_expecting(VPQ(case["categories"]), videos, expected)
    if evaluator is None:
        return
    result = evaluator.compute()
    if "raises" in expected:
        assert any(np.isnan(result[name]) for name in ("VPQ", "VPQ-Th", "VPQ-St"))
        stats = expected["class_stats"]
    else:
        for ours, theirs in (("VPQ", "VPQ"), ("VPQ-Th", "VPQ_Th"), ("VPQ-St", "VPQ_St")):
            assert result[ours] == close(expected[theirs])
        stats = {window: values["per_class"] for window, values in expected["windows"].items()}
        for window, values in expected["windows"].items():
            assert result[f"VPQ@{window}"] == close(values["VPQ"])
    total = TubeCounts.total(list(evaluator.records.values()), 5, len(evaluator.category_ids))
    for row, window in enumerate(evaluator.windows):
        for column, category in enumerate(evaluator.category_ids):
            reference = stats[str(window)].get(str(category), {"iou": 0, "tp": 0, "fp": 0, "fn": 0})
            ours = [int(counts[row, column]) for counts in (total.tp, total.fp, total.fn)]
            assert ours == [reference[name] for name in ("tp", "fp", "fn")]
            assert total.iou_sum[row, column] == close(reference["iou"])


@pytest.mark.parametrize("name", ["stq_en", "stq"])
def test_stq(case, name):
    case, videos = case
    expected = case["expected"][name]
    evaluator = EntitySTQ() if name == "stq_en" else STQ(case["categories"])
    if evaluate_expecting(evaluator, videos, expected) is None:
        return
    result, rows = evaluator.compute(), evaluator.per_video()
    for suffix, key in (("", "STQ"), ("-AQ", "AQ"), ("-IoU", "IoU")):
        assert result[evaluator.name + suffix] == close(expected[key])
        for video, reference in zip(videos, expected[f"{key}_per_seq"]):
            assert rows[video.video_id][evaluator.name + suffix] == close(reference)
    records = [evaluator.records[video.video_id] for video in videos]
    assert [record.tubes for record in records] == expected["num_tubes_per_seq"]
    assert [record.frames for record in records] == expected["Length_per_seq"]


def test_results_do_not_depend_on_merging_and_order():
    """Two processes with any division of the videos give the same floats as one."""
    path = max((p for p in CASES if p.stem.startswith("rand")), key=lambda p: len(json.loads(p.read_text())["videos"]))
    case, videos = load(path)
    assert len(videos) >= 3
    makers = (VEQ, EntitySTQ, lambda: VPQ(case["categories"]), lambda: STQ(case["categories"]))
    for make in makers:
        whole = evaluate(make(), videos)
        for seed in range(4):
            shuffled = random.Random(seed).sample(videos, len(videos))
            first, second = evaluate(make(), shuffled[seed % 3 :]), evaluate(make(), shuffled[: seed % 3])
            first.merge(second)
            assert repr(first.compute()) == repr(whole.compute())
            assert repr(first.per_video()) == repr(whole.per_video())
            assert first.warnings == whole.warnings
