"""HOTA, IDF1, MOTA and TETA on hand-worked cases."""

import numpy as np
import pytest

from entitysam.evaluation import TETA, BDDTracking, BoxTracking, EvaluationError, TrackedVideo, Tracks
from entitysam.evaluation.bdd_tracking import outside_regions
from entitysam.evaluation.teta import vote_category
from entitysam.evaluation.tracks import box_iou

CATEGORIES = [{"id": 1, "name": "pedestrian"}, {"id": 3, "name": "car"}]


def rows(track_id, frames, x=0, category=1, width=10):
    """A static track: boxes of height 10 at (x, 0)."""
    return [[frame, track_id, category, x, 0, width, 10] for frame in frames]


def evaluated(evaluator, truth, predicted):
    evaluator.update(TrackedVideo("v", Tracks.from_rows(truth), Tracks.from_rows(predicted)))
    return evaluator.compute()


def test_box_iou_by_hand():
    a = np.array([[0, 0, 10, 10], [5, 5, 0, 3]], float)
    b = np.array([[5, 0, 10, 10], [0, 0, 10, 10], [20, 0, 1, 1]], float)
    assert box_iou(a, b) == pytest.approx(np.array([[1 / 3, 1, 0], [0, 0, 0]]))


def test_an_identity_switch_by_hand():
    # One object on four frames, detected exactly on all of them, but as two tracks of two frames.
    result = evaluated(BoxTracking(CATEGORIES[:1]), rows(1, range(4)), rows(5, (0, 1)) + rows(6, (2, 3)))
    # Each of the 4 true positives belongs to a pair that agrees on 2 of the 4 frames in the union of its tracks.
    assert result["DetA"] == pytest.approx(1)
    assert result["AssA"] == pytest.approx(0.5)
    assert result["AssPr"] == pytest.approx(1)
    assert result["HOTA"] == pytest.approx(0.5**0.5)
    # IDF1: one of the two tracks is assigned to the object: 2 / (2 + 2/2 + 2/2). MOTA: one switch in four boxes.
    assert result["IDF1"] == pytest.approx(0.5)
    assert result["MOTA"] == pytest.approx(3 / 4)
    assert (result["IDSW"], result["Frag"], result["MT"]) == (1, 0, 1)


def test_misses_and_false_positives_by_hand():
    truth, predicted = rows(1, range(4)), rows(5, (0, 1, 3)) + rows(6, (2,), x=50)
    result = evaluated(BoxTracking(CATEGORIES[:1]), truth, predicted)
    # 3 true positives, 1 miss, 1 false positive; the pair agrees on 3 of 4 frames.
    assert result["DetA"] == pytest.approx(3 / 5)
    assert result["AssA"] == pytest.approx(3 / 4)
    assert result["MOTA"] == pytest.approx((3 - 1) / 4)
    assert result["IDF1"] == pytest.approx(3 / 4)
    assert result["Frag"] == 1


def test_class_means_and_class_agnostic_numbers_differ():
    result = evaluated(BoxTracking(CATEGORIES), rows(1, range(3)), rows(5, range(3), category=3))
    assert (result["HOTA-agnostic"], result["HOTA"]) == (1, 0)


def test_teta_separates_localisation_association_and_classification():
    perfect = rows(1, range(4)) + rows(2, range(4), x=50, category=3)
    wrong_class = rows(5, range(4), category=3) + rows(6, range(4), x=50, category=3)
    result = evaluated(TETA(CATEGORIES), perfect, wrong_class)
    # Boxes and tracks are correct. Class 1: 0 of 4 boxes correct: 0. Class 3: 4 correct, 4 false positives: 4 / 8.
    assert result["LocA"] == pytest.approx(100)
    assert result["AssocA"] == pytest.approx(100)
    assert result["ClsA"] == pytest.approx(100 * (0 + 1 / 2) / 2)
    assert result["TETA"] == pytest.approx((100 + 100 + 25) / 3)


def test_teta_ignores_far_false_positives_unless_exhaustive():
    truth, predicted = rows(1, range(4)), rows(5, range(4)) + rows(6, range(4), x=100)
    assert evaluated(TETA(CATEGORIES), truth, predicted)["TETA"] == pytest.approx(100)
    # Exhaustive: the four other boxes predict class 1: ClsA = 4 / (4 + 4)
    exhaustive = evaluated(TETA(CATEGORIES, exhaustive=True), truth, predicted)
    assert exhaustive["ClsA"] == pytest.approx(50)
    assert exhaustive["LocA"] == pytest.approx(100)


def test_vote_takes_the_smallest_category_of_a_tie():
    tracks = Tracks.from_rows([[0, 1, 9, 0, 0, 1, 1], [1, 1, 4, 0, 0, 1, 1], [0, 2, 7, 0, 0, 1, 1]])
    assert vote_category(tracks).category.tolist() == [4, 4, 7]


def test_predictions_inside_an_ignored_region_are_dropped():
    truth = Tracks.from_rows(rows(1, (0,)))
    regions = Tracks.from_rows(rows(9, (0,), x=40, width=100))
    # Matches an annotation; inside the region; exactly half inside; inside, but on another frame.
    predicted = rows(5, (0,)) + rows(6, (0,), x=60) + rows(7, (0,), x=35) + rows(8, (1,), x=60)
    assert outside_regions(truth, Tracks.from_rows(predicted), regions).track_id.tolist() == [5, 7, 8]


def test_bdd_means_over_eight_classes_and_pools():
    result = evaluated(BDDTracking(CATEGORIES), rows(1, range(4)), rows(5, range(4)))
    # One perfect class of eight; TETA averages over classes with boxes only.
    assert result["mIDF1"] == result["mMOTA"] == result["mHOTA"] == pytest.approx(100 / 8)
    assert result["IDF1"] == result["MOTA"] == result["HOTA"] == result["mTETA"] == pytest.approx(100)


@pytest.mark.parametrize("make", [BoxTracking, TETA, BDDTracking])
def test_a_track_with_two_boxes_on_a_frame_raises(make):
    with pytest.raises(EvaluationError, match="video v, prediction, frame 2: id 5 has two boxes"):
        evaluated(make(CATEGORIES), rows(1, range(4)), rows(5, range(4)) + rows(5, (2,), x=50))
