"""VEQ, VPQ, STQ and PQ on hand-worked cases, against brute force, and on bad input."""

import itertools

import numpy as np
import pytest

from entitysam.evaluation import (
    STQ,
    VEQ,
    VPQ,
    EntitySTQ,
    EvaluationError,
    PanopticQuality,
    PanopticSequence,
    PanopticVideo,
)
from entitysam.evaluation.overlaps import frame_overlaps

CATEGORIES = [{"id": 1, "isthing": 1}, {"id": 2, "isthing": 0}]


def sequence(maps, category=lambda segment_id: 1, **changes):
    """Ground truth or prediction of a video from its maps [T, H, W]."""
    maps = np.asarray(maps, np.int32)
    segments = [
        [
            {"id": int(i), "category_id": category(int(i)), "iscrowd": 0, "area": int((frame == i).sum())} | changes
            for i in np.unique(frame[frame > 0])
        ]
        for frame in maps
    ]
    return PanopticSequence(segments, maps.__getitem__)


def updated(evaluator, truth, prediction, video_id="v"):
    evaluator.update(PanopticVideo(video_id, truth, prediction))
    return evaluator


# Two frames of eight pixels. Entity 1 fills the left half on both; the right half is VOID, then entity 2.
TRUTH = [[[1, 1, 1, 1, 0, 0, 0, 0]], [[1, 1, 1, 1, 2, 2, 2, 2]]]
# Segment 7 covers three pixels of entity 1 and one of VOID; on frame 1 segment 8 covers three pixels of entity 2.
PREDICTED = [[[0, 7, 7, 7, 7, 0, 0, 0]], [[0, 7, 7, 7, 0, 8, 8, 8]]]


def test_veq_by_hand():
    result = updated(VEQ(windows=(1, 2)), sequence(TRUTH), sequence(PREDICTED)).compute()
    # k = 1, frame 0: I = 3, |g| = 4, |p| = 4, of which 1 on void: IoU = 3 / (4 + 4 - 3 - 1) = 3/4
    #        frame 1: entity 1: 3 / (3 + 4 - 3) = 3/4; entity 2: the same. TP = 3, no FP, no FN: VEQ = 3/4
    assert result["VEQ@1"] == pytest.approx(75)
    # k = 2: entity 1: I = 6, 8 + 7 - 6 - 1 = 8: 3/4; entity 2: 3/4
    assert result["VEQ@2"] == pytest.approx(75)
    assert [result[name] for name in ("VEQ", "VEQ-SQ", "VEQ-RQ")] == pytest.approx([75, 75, 100])


def test_an_identity_switch_lowers_veq_only_in_long_windows():
    truth, predicted = [[[1, 1]]] * 2, [[[5, 5]], [[6, 6]]]
    result = updated(VEQ(windows=(1, 2)), sequence(truth), sequence(predicted)).compute()
    # k = 1: two perfect matches. k = 2: both IoUs are 2 / (4 + 2 - 2) = 1/2, not above 1/2: 0 TP, 2 FP, 1 FN
    assert (result["VEQ@1"], result["VEQ@2"]) == (100, 0)


def test_vpq_by_hand():
    truth = sequence(TRUTH, category=lambda i: i)
    predicted = sequence(PREDICTED, category={7: 1, 8: 1}.__getitem__)
    result = updated(VPQ(CATEGORIES, windows=(1,)), truth, predicted).compute()
    # Thing 1: two matches of 3/4, and segment 8 is a false positive: (3/4 + 3/4) / (2 + 1/2) = 0.6
    # Stuff 2: entity 2 is missed: 0 / (1/2) = 0
    assert [result[name] for name in ("VPQ", "VPQ-Th", "VPQ-St")] == pytest.approx([30, 60, 0])


def test_stq_en_by_hand():
    result = updated(EntitySTQ(), sequence(TRUTH), sequence(PREDICTED)).compute()
    # Entity 1 is listed first, hence crowd: only entity 2 is a tube, |g| = 4. Segment 8: |p| = 3, TPA = 3.
    # AQ = (1/4) * 3 * 3 / (3 + 4 - 3) = 9/16
    assert result["STQ^EN-AQ"] == pytest.approx(9 / 16)
    # Twelve labelled pixels, nine of them predicted as entity: IoU 9/12; the ignore class enters the mean with 0: 3/8
    assert result["STQ^EN-IoU"] == pytest.approx(3 / 8)
    assert result["STQ^EN"] == pytest.approx((9 / 16 * 3 / 8) ** 0.5)


def test_stq_by_hand():
    truth = sequence([[[1, 1, 2, 2, 3, 3]]], category={1: 2, 2: 1, 3: 1}.__getitem__)
    predicted = sequence([[[4, 4, 5, 5, 5, 0]]], category={4: 2, 5: 1}.__getitem__)
    result = updated(STQ(CATEGORIES, num_classes=3), truth, predicted).compute()
    # Stuff 1 is number 0 and not a thing, so both things are tubes of 2 pixels; segment 5 has 3 pixels.
    # g = 2: TPA 2: (1/2) 4 / (3 + 2 - 2) = 2/3; g = 3: TPA 1: (1/2) 1 / (3 + 2 - 1) = 1/8; AQ = 19/48
    assert result["STQ-AQ"] == pytest.approx(19 / 48)
    # IoU: stuff 2/2, thing 3/4, ignore 0/1: mean 7/12
    assert result["STQ-IoU"] == pytest.approx(7 / 12)


def test_pq_by_hand():
    truth = sequence([[[1, 1, 1, 1, 2, 2]]], category={1: 1, 2: 2}.__getitem__)
    predicted = sequence([[[3, 3, 3, 0, 4, 4]]], category={3: 1, 4: 1}.__getitem__)
    result = updated(PanopticQuality(CATEGORIES), truth, predicted).compute()
    # Things: IoU 3/4, one false positive: PQ = 0.75 / 1.5, SQ 0.75, RQ = 1 / 1.5. Stuff: one miss.
    assert [result[name] for name in ("PQ-Th", "SQ-Th", "RQ-Th")] == pytest.approx([0.5, 0.75, 2 / 3])
    assert [result[name] for name in ("PQ", "PQ-St")] == pytest.approx([0.25, 0])


def blobs(seed, frames=9, size=(12, 16), ids=5):
    """Random coherent maps with void, new entities and identity switches."""
    rng = np.random.default_rng(seed)
    maps = np.repeat(np.repeat(rng.integers(0, ids + 1, (frames, 3, 4)), 4, 1), 4, 2)
    maps[1::2] = maps[:-1:2]  # some persistence, so that tubes match
    return np.where(rng.random((frames, *size)) < 0.1, 0, maps)


def brute_force_veq(truth, predicted, window):
    """The definition, computed with masks of whole tubes."""
    iou_sum, tp, fp, fn = 0.0, 0, 0, 0
    for start in range(len(truth) - window + 1):
        t, p = truth[start : start + window], predicted[start : start + window]
        truth_ids, predicted_ids = set(np.unique(t)) - {0}, set(np.unique(p)) - {0}
        hits = {}
        for g, q in itertools.product(truth_ids, predicted_ids):
            iou = ((t == g) & (p == q)).sum() / (((t == g) | (p == q)) & ((t > 0) | (p != q))).sum()
            if iou > 0.5:
                hits[g, q] = iou
        free = [q for q in predicted_ids - {q for _, q in hits} if ((p == q) & (t == 0)).sum() / (p == q).sum() > 0.5]
        iou_sum, tp = iou_sum + sum(hits.values()), tp + len(hits)
        fn, fp = fn + len(truth_ids) - len(hits), fp + len(predicted_ids) - len(hits) - len(free)
    return 100 * iou_sum / (tp + fp / 2 + fn / 2)


@pytest.mark.parametrize("seed", range(5))
def test_veq_equals_brute_force(seed):
    truth = blobs(seed)
    predicted = np.where(np.random.default_rng(seed).random(truth.shape) < 0.15, 0, truth)
    predicted[4:] = np.where(predicted[4:] == 1, 9, predicted[4:])
    predicted[:, :3] = blobs(seed + 100)[:, :3]
    result = updated(VEQ(), sequence(truth), sequence(predicted)).compute()
    for window in (1, 2, 4, 6, 8):
        assert result[f"VEQ@{window}"] == pytest.approx(brute_force_veq(truth, predicted, window))
    assert 0 < result["VEQ"] < 100


@pytest.mark.parametrize("seed", range(3))
def test_overlaps_equal_a_count_over_pixels(seed):
    rng = np.random.default_rng(seed)
    truth, predicted = rng.integers(0, 4, (2, 7, 9)) * [[[1]], [[2**24 // 4 - 1]]]
    keys, counts = np.unique(np.stack([truth.ravel(), predicted.ravel()]), axis=1, return_counts=True)
    ours = frame_overlaps(truth.astype(np.int32), predicted.astype(np.int32))
    assert all(np.array_equal(a, b) for a, b in zip(ours, (*keys, counts)))


def test_prediction_equal_to_truth_is_perfect_and_shuffled_ids_are_worse():
    truth = sequence(blobs(1))
    assert updated(VEQ(), truth, truth).compute()["VEQ"] == 100
    shuffled = sequence([np.where(frame > 0, (frame + t) % 6 + 1, 0) for t, frame in enumerate(blobs(1))])
    assert updated(VEQ(), truth, shuffled).compute()["VEQ"] < 100


ALL = {
    "veq": VEQ,
    "stq_en": EntitySTQ,
    "vpq": lambda: VPQ(CATEGORIES),
    "stq": lambda: STQ(CATEGORIES),
    "pq": lambda: PanopticQuality(CATEGORIES),
}
STRICT = ("veq", "vpq", "pq")


@pytest.mark.parametrize("name", ["stq_en", "vpq", "stq", "pq"])
def test_a_missing_prediction_raises(name):
    with pytest.raises(EvaluationError, match="video v: not predicted"):
        updated(ALL[name](), sequence([[[1]]]), None)


def test_veq_skips_and_counts_missing_predictions():
    evaluator = updated(VEQ(), sequence([[[1]]]), None)
    assert evaluator.warnings == {"videos without a prediction, skipped by VEQ": 1}
    assert evaluator.compute()["VEQ"] == 0


@pytest.mark.parametrize("name", ["veq", "vpq", "stq", "stq_en"])
def test_missing_frames_and_other_sizes_raise(name):
    with pytest.raises(EvaluationError, match="video v: 1 frames predicted, 2 frames annotated"):
        updated(ALL[name](), sequence(TRUTH), sequence(PREDICTED[:1]))
    with pytest.raises(EvaluationError, match="video v, frame 0: predicted map is 8x1, ground truth 4x2"):
        updated(ALL[name](), sequence(np.reshape(TRUTH, (2, 2, 4))), sequence(PREDICTED))


@pytest.mark.parametrize("name", STRICT)
def test_map_and_json_of_the_prediction_must_agree(name):
    truth = sequence(TRUTH[:1])
    segments = [{"id": 7, "category_id": 1, "iscrowd": 0}]
    unlisted = PanopticSequence([[]], np.array(PREDICTED, np.int32).__getitem__)
    with pytest.raises(EvaluationError, match="video v, prediction, frame 0: id 7 is in the map and not listed"):
        updated(ALL[name](), truth, unlisted)
    absent = PanopticSequence([[*segments, {"id": 9, "category_id": 1}]], unlisted.read)
    with pytest.raises(EvaluationError, match="video v, prediction, frame 0: id 9 is listed in the JSON and has no"):
        updated(ALL[name](), truth, absent)


def test_a_wrong_predicted_area_stops_veq_and_is_counted_by_vpq():
    truth, predicted = sequence(TRUTH), sequence(PREDICTED, area=2)
    with pytest.raises(EvaluationError, match="frame 0: id 7 has area 2 in the JSON and 4 in the map"):
        updated(VEQ(), truth, predicted)
    warnings = updated(VPQ(CATEGORIES), truth, predicted).warnings
    assert warnings["predicted areas in the JSON that differ from the map, replaced"] == 3


def test_an_unknown_category_stops_vpq_and_stq():
    with pytest.raises(EvaluationError, match="video v, prediction, frame 0: id 7 has category 5"):
        updated(VPQ(CATEGORIES), sequence(TRUTH), sequence(PREDICTED, category_id=5))
    with pytest.raises(
        EvaluationError, match=r"video v, prediction, frame 0: id 7 has category 999, expected 0\.\.123"
    ):
        updated(STQ(CATEGORIES), sequence(TRUTH), sequence(PREDICTED, category_id=999))


def test_too_small_annotated_areas_stop_veq():
    with pytest.raises(EvaluationError, match=r"video v, frames 0\.\.0: IoU above 1 between annotated id 1 and"):
        updated(VEQ(), sequence(TRUTH, area=1), sequence(PREDICTED))


def test_an_annotation_without_area_raises():
    truth = PanopticSequence([[{"id": 1, "iscrowd": 0, "category_id": 1}]], np.array(TRUTH, np.int32).__getitem__)
    with pytest.raises(EvaluationError, match="video v, ground truth, frame 0: segment 1 has no 'area'"):
        updated(VEQ(), truth, sequence(PREDICTED[:1]))


def test_per_video_omits_windows_longer_than_the_video():
    truth = sequence([[[1, 1]]] * 3)
    evaluator = updated(VEQ(), truth, truth)
    assert evaluator.compute()["VEQ"] == 40  # windows 1 and 2 of five
    assert evaluator.per_video()["v"]["VEQ"] == 100
