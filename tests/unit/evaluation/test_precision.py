"""Average precision, AP^e, mIoU and video consistency on hand-worked cases, and on bad input."""

import numpy as np
import pytest
import torch

from entitysam.evaluation import (
    OVISAP,
    AgnosticYouTubeVISAP,
    EntityAP,
    EvaluationError,
    Instance,
    InstanceVideo,
    SemanticSegmentation,
    SemanticVideo,
    YouTubeVISAP,
    make_exclusive,
)
from entitysam.evaluation.average_precision import rle_intersections
from entitysam.evaluation.tube_ap import tube_iou
from entitysam.ops import rle_encode

CATEGORIES = [{"id": 1}, {"id": 2}]


def bar(*spans, width=20, **kwargs):
    """An instance whose mask on frame t covers the columns spans[t] = (first, last + 1) of one row; None: absent."""
    masks = []
    for span in spans:
        row = np.zeros((1, width), bool)
        if span:
            row[0, slice(*span)] = True
        masks.append(rle_encode(row) if span else None)
    return Instance(kwargs.pop("category_id", 1), masks, **kwargs)


def result(evaluator, *videos):
    for video in videos:
        evaluator.update(video)
    return evaluator.compute()


def test_tube_iou_by_hand():
    detection, truth = bar((0, 4), (0, 4), None), bar((2, 6), None, (0, 5))
    # Intersection 2; union 6 on frame 0, 4 on frame 1 (detection alone), 5 on frame 2 (annotation alone)
    assert tube_iou([detection], [truth])[0, 0] == pytest.approx(2 / 15)
    assert tube_iou([bar(None)], [bar(None)])[0, 0] == 0


def test_tube_ap_by_hand():
    truth = [bar((0, 10)), bar((10, 20))]
    detections = [
        bar((0, 10), score=0.9),  # true positive at every threshold
        bar((0, 9), score=0.8),  # its annotation is taken: false positive
        bar((10, 16), score=0.7),  # IoU 0.6: true positive at .50, .55 and .60
    ]
    numbers = result(YouTubeVISAP(CATEGORIES), InstanceVideo(1, truth, detections))
    # At t <= .6: precision 1 up to recall 1/2 (51 of the 101 points), 2/3 up to recall 1 (50 points).
    # Above: 1 for 51 points, then 0.
    low, high = (51 + 50 * 2 / 3) / 101, 51 / 101
    assert numbers["AP50"] == pytest.approx(low)
    assert numbers["AP75"] == pytest.approx(high)
    assert numbers["AP"] == pytest.approx((3 * low + 7 * high) / 10)
    # One detection per video: recall 1/2. Ten: 1 at three thresholds, 1/2 at seven.
    assert numbers["AR1"] == pytest.approx(0.5)
    assert numbers["AR10"] == pytest.approx((3 * 1 + 7 * 0.5) / 10)
    assert np.isnan(numbers["APl"])  # no annotation is that large


def test_categories_matter_only_to_the_class_specific_metric():
    video = InstanceVideo(1, [bar((0, 10))], [bar((0, 10), category_id=2, score=0.5)])
    assert result(YouTubeVISAP(CATEGORIES), video)["AP"] == 0
    assert result(AgnosticYouTubeVISAP(CATEGORIES), video)["AP^ca"] == pytest.approx(1)


def test_occlusion_groups_by_hand():
    labels = ["severe_occlusion", "no_occlusion", None]  # upper half of (0, .75): .75, heavy
    hidden = bar((0, 10), (0, 10), None, occlusion=labels)
    clear = bar((10, 20), (10, 20), None, occlusion=["no_occlusion"] * 2 + [None])
    found = bar((0, 10), (0, 10), None, score=0.9)
    numbers = result(OVISAP(CATEGORIES), InstanceVideo(1, [hidden, clear], [found]))
    assert numbers["AP-heavy"] == pytest.approx(1)
    assert numbers["AP-light"] == 0  # the unoccluded one is missed; the match of the ignored one does not count
    assert np.isnan(numbers["AP-medium"])
    with pytest.raises(EvaluationError, match="video 2: annotation 1 has no occlusion labels"):
        result(OVISAP(CATEGORIES), InstanceVideo(2, [bar((0, 10))], []))


def test_entity_ap_by_hand():
    truth = [bar((0, 10)), bar((10, 20), crowd=True)]
    inside_crowd = bar((12, 14), score=0.9)  # 2 of its 2 pixels lie on the crowd: ignored
    right = bar((0, 10), score=0.8)
    numbers = result(EntityAP(), InstanceVideo(1, truth, [inside_crowd, right]))
    assert numbers["AP^e"] == pytest.approx(1)
    assert numbers["AR^e1"] == 0  # the ignored detection takes the only place


def test_intersections_equal_a_count_over_pixels():
    rng = np.random.default_rng(0)
    a, b = (rng.random((n, 37, 53)) < 0.4 for n in (5, 4))
    b[0] = False
    expected = (a[:, None] & b[None]).sum((2, 3))
    assert np.array_equal(rle_intersections(list(map(rle_encode, a)), list(map(rle_encode, b))), expected)


def test_odd_input_is_counted_or_raises():
    evaluator = YouTubeVISAP(CATEGORIES)
    odd = [bar((0, 10), score=float("nan")), bar((0, 10), category_id=9)]
    assert result(evaluator, InstanceVideo(1, [bar((0, 10))], odd))["AP50"] == pytest.approx(1)
    assert evaluator.warnings["detections whose score is NaN"] == 1
    assert evaluator.warnings["instances of an unknown category, dropped"] == 1
    with pytest.raises(EvaluationError, match="video 2, frame 0: predicted and annotated masks differ in size"):
        evaluator.update(InstanceVideo(2, [bar((0, 10))], [bar((0, 10), width=30)]))


def test_no_detection_at_all_is_undefined(caplog):
    numbers = result(EntityAP(), InstanceVideo(1, [bar((0, 10))], []))
    assert all(np.isnan(value) for value in numbers.values())
    assert "no detection in any of 1 videos" in caplog.text


def test_exclusive_masks_by_hand():
    logits = torch.tensor([[[2.0, 2.0, -1.0]], [[3.0, 3.0, 3.0]], [[1.0, -1.0, -1.0]]])
    classes = torch.tensor([[0.0, 0.0], [2.0, 0.0], [-1.0, 0.0]])
    masks, scores = make_exclusive(logits, classes)
    # The second has the highest score and gets all three pixels; the others are empty and score 0.
    assert masks.tolist() == [[[True, True, True]], [[False] * 3], [[False] * 3]]
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    assert scores.tolist() == pytest.approx([sigmoid(2) * sigmoid(sigmoid(3)), 0, 0], rel=1e-5)
    assert len(make_exclusive(logits, classes, keep=1)[0]) == 1


def semantic(truth, predicted, video_id="v", **kwargs):
    truth, predicted = np.array(truth, np.uint8), np.array(predicted, np.uint8)
    video = SemanticVideo(video_id, len(truth), truth.__getitem__, predicted.__getitem__)
    return result(SemanticSegmentation(**kwargs), video)


def test_miou_by_hand():
    # Stored labels 1, 2, void, others -> classes 0, 1, void, void; class 2 is only predicted and has no entry.
    numbers = semantic([[[1, 1, 1, 2, 255, 0]]], [[[0, 0, 1, 2, 0, 0]]], num_classes=4)
    assert numbers["mIoU"] == pytest.approx((2 / 3 + 0) / 2)
    assert numbers["Acc"] == pytest.approx(2 / 4)
    assert numbers["Acc-class"] == pytest.approx((2 / 3 + 0) / 2)
    assert numbers["fwIoU"] == pytest.approx(3 / 4 * 2 / 3)


def test_consistency_by_hand():
    truth = [[[1, 1, 1, 2]], [[1, 1, 1, 3]], [[1, 1, 2, 3]], [[9, 9, 9, 9]]]
    predicted = [[[5, 5, 5, 5]], [[5, 6, 5, 5]], [[5, 6, 5, 5]], [[7, 7, 7, 7]]]
    # n = 2, T = 4: clips 0 and 1 only. Clip 0: pixels 0, 1, 2 are stable, the prediction is at 0 and 2: 2/3.
    # Clip 1: pixels 0, 1, 3 are stable, and so is the prediction there: 1. The last clip (0/0) is ignored.
    assert semantic(truth, predicted, num_classes=12, windows=(2,))["mVC2"] == pytest.approx((2 / 3 + 1) / 2)
    assert np.isnan(semantic(truth, predicted, num_classes=12, windows=(4,))["mVC4"])


def test_semantic_bad_input_raises():
    with pytest.raises(EvaluationError, match="video v, frame 0: predicted class 200"):
        semantic([[[124]]], [[[200]]])
    with pytest.raises(EvaluationError, match="video v, frame 0: predicted map is 2x1, ground truth 1x1"):
        semantic([[[1]]], [[[1, 1]]])
