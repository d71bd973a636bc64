"""PQ of images against the numbers of the reference evaluator (golden/metrics/coco_pq)."""

import json
from pathlib import Path

import numpy as np
import pytest

from entitysam.evaluation import EvaluationError, PanopticQuality, PanopticSequence, PanopticVideo
from entitysam.evaluation.tube_pq import TubeCounts

CASES = sorted((Path(__file__).parents[1] / "golden" / "metrics" / "coco_pq").glob("*.json"))
assert len(CASES) == 32


def load(path):
    case, arrays = json.loads(path.read_text()), np.load(path.with_suffix(".npz"))
    images = []
    for image in case["images"]:
        truth, prediction = (arrays.get(f"{side}_{image['index']}") for side in ("gt", "pred"))
        sides = [PanopticSequence([image["gt_segments"]], lambda frame, ids=truth: ids), None]
        if image["pred_segments"] is not None:
            sides[1] = PanopticSequence([image["pred_segments"]], lambda frame, ids=prediction: ids)
        images.append(PanopticVideo(image["image_id"], *sides))
    return case, images


def evaluate(evaluator, images):
    for image in images:
        evaluator.update(image)
    return evaluator


def close(value):
    return pytest.approx(float(value), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_pq(path):
    case, images = load(path)
    expected, evaluator = case["expected"], PanopticQuality(case["categories"])
    if expected.get("raises", "ZeroDivisionError") != "ZeroDivisionError":
        with pytest.raises(EvaluationError, match=r"video \d+"):
            evaluate(evaluator, images)
        return
    evaluate(evaluator, images)
    result = evaluator.compute()
    if "raises" in expected:
        assert any(np.isnan(value) for value in result.values())
    else:
        for group, suffix in (("All", ""), ("Things", "-Th"), ("Stuff", "-St")):
            for metric in ("PQ", "SQ", "RQ"):
                assert result[metric + suffix] == close(expected["result"][group][metric.lower()])
    total = TubeCounts.total(list(evaluator.records.values()), 1, len(evaluator.category_ids))
    for column, category in enumerate(evaluator.category_ids):
        reference = expected["class_stats"].get(str(category), {"iou": 0, "tp": 0, "fp": 0, "fn": 0})
        assert [int(counts[0, column]) for counts in (total.tp, total.fp, total.fn)] == [
            reference[name] for name in ("tp", "fp", "fn")
        ]
        assert total.iou_sum[0, column] == close(reference["iou"])


def test_results_do_not_depend_on_merging_and_order():
    case, images = load(next(path for path in CASES if path.stem == "rand_ten_images"))
    whole, first, second = (
        evaluate(PanopticQuality(case["categories"]), share) for share in (images, images[:3:-1], images[:4])
    )
    first.merge(second)
    assert repr(first.compute()) == repr(whole.compute())
