"""J of the best single id against a slow version, and by hand."""

import numpy as np
import pytest

from entitysam.evaluation import BestIdJ, PanopticSequence, PanopticVideo


def video(truth, predicted, name="v"):
    listed = [[] for _ in truth]
    return PanopticVideo(
        name, PanopticSequence(listed, truth.__getitem__), PanopticSequence(listed, predicted.__getitem__)
    )


def metrics(*videos):
    evaluator = BestIdJ()
    for one in videos:
        evaluator.update(one)
    return evaluator.percent(evaluator.compute())


def slow(truth, predicted):
    """Mean IoU over frames for every pair of ids, pixel by pixel."""
    result = []
    for g in np.unique(truth[truth > 0]):
        best = np.mean([not (frame == g).any() for frame in truth])
        for p in np.unique(predicted[predicted > 0]):
            values = []
            for t, q in zip(truth, predicted):
                union = ((t == g) | (q == p)).sum()
                values.append(((t == g) & (q == p)).sum() / union if union else 1.0)
            best = max(best, np.mean(values))
        result.append(best)
    return result


def test_equals_the_slow_version():
    generator = np.random.default_rng(0)
    for number in range(5):
        truth = generator.integers(0, 4, (6, 5, 7)).astype(np.int32)
        predicted = np.where(generator.random(truth.shape) < 0.6, truth + 3, generator.integers(0, 9, truth.shape))
        truth[number] = 0  # a frame without objects
        found = BestIdJ().measure(video(truth, predicted.astype(np.int32)), None)
        np.testing.assert_allclose(found, slow(truth, predicted), atol=1e-12)


def test_a_changed_id_costs_the_frames_after_it():
    truth = np.ones((4, 2, 2), np.int32)
    predicted = np.array([7, 7, 7, 8], np.int32)[:, None, None] * truth
    assert metrics(video(truth, predicted))["J"] == pytest.approx(75)
    assert metrics(video(truth, truth * 5))["J"] == pytest.approx(100)


def test_unlabelled_pixels_of_the_id_are_errors_and_nothing_found_is_zero():
    truth = np.array([[[1, 1, 0, 0]]], np.int32)
    assert metrics(video(truth, np.ones_like(truth)))["J"] == pytest.approx(50)
    assert metrics(video(truth, np.zeros_like(truth))) == {"J": 0, "J-recall": 0}


def test_the_mean_is_over_objects_and_recall_needs_more_than_half():
    two = np.array([[[1, 1, 2, 2]]], np.int32)
    found = metrics(
        video(two, np.array([[[3, 3, 0, 0]]], np.int32)), video(two[..., :2], np.array([[[4, 0]]], np.int32), "w")
    )
    assert found["J"] == pytest.approx(100 * (1 + 0 + 0.5) / 3)
    assert found["J-recall"] == pytest.approx(100 / 3)
