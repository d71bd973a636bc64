"""MASA's losses against loops that follow the formulas word by word."""

import math

import pytest
import torch

from entitysam.masa.criterion import WEIGHTS, MasaCriterion, contrastive_loss, margin_loss
from entitysam.registry import ConfigError
from entitysam.structures import BoxTargets, PairOutput


def loop_contrastive(similarity, positive):
    """Mean over keys of the mean over positives of -log(e^p / (mean of e^p' + sum of e^n))."""
    per_key = []
    for row, hits in zip(similarity.tolist(), positive.tolist()):
        good = [value for value, hit in zip(row, hits) if hit]
        bad = [value for value, hit in zip(row, hits) if not hit]
        if good:
            denominator = sum(math.exp(v) for v in good) / len(good) + sum(math.exp(v) for v in bad)
            per_key.append(sum(-math.log(math.exp(v) / denominator) for v in good) / len(good))
    return sum(per_key) / len(per_key)


def loop_margin(cosine, positive, margin, share):
    good, bad = [], []
    for row, hits in zip(cosine.tolist(), positive.tolist()):
        for value, hit in zip(row, hits):
            (good if hit else bad).append(
                (1 - min(max(value, 0), 1)) ** 2 if hit else min(max(value - margin, 0), 1) ** 2
            )
    kept = good + sorted(bad, reverse=True)[: share * len(good)]
    return sum(kept) / len(kept)


@pytest.fixture
def table():
    generator = torch.Generator().manual_seed(0)
    similarity = torch.randn(7, 11, generator=generator, dtype=torch.float64) * 2
    positive = torch.rand(7, 11, generator=generator) < 0.25
    positive[3] = False
    return similarity, positive


def test_contrastive_is_the_published_formula(table):
    assert contrastive_loss(*table).item() == pytest.approx(loop_contrastive(*table), rel=1e-5)


def test_one_positive_gives_the_formula_of_the_paper():
    similarity = torch.tensor([[1.5, -0.5, 0.25, 2.0]])
    positive = torch.tensor([[False, True, False, False]])
    expected = math.log(1 + math.exp(1.5 + 0.5) + math.exp(0.25 + 0.5) + math.exp(2.0 + 0.5))
    assert contrastive_loss(similarity, positive).item() == pytest.approx(expected, rel=1e-6)


def test_contrastive_of_large_products_is_finite():
    similarity = torch.tensor([[900.0, -900.0]], requires_grad=True)
    loss = contrastive_loss(similarity, torch.tensor([[False, True]]))
    loss.backward()
    assert loss.item() == pytest.approx(1800)
    assert torch.isfinite(similarity.grad).all()


def test_margin_counts_the_hardest_negatives(table):
    similarity, positive = table
    cosine = similarity.tanh()
    for share in (1, 3, 100):
        expected = loop_margin(cosine, positive, 0.1, share)
        assert margin_loss(cosine, positive, 0.1, share).item() == pytest.approx(expected, rel=1e-5)


def test_negatives_below_the_margin_cost_nothing():
    cosine = torch.tensor([[1.0, 0.1, -0.9]])
    assert margin_loss(cosine, torch.tensor([[True, False, False]])).item() == 0


def output_of(key, reference, key_rows, reference_rows):
    return PairOutput(
        key, reference, torch.tensor(key_rows), torch.tensor(reference_rows),
        torch.zeros(len(key), 4), torch.zeros(len(reference), 4), {"rpn_class": torch.tensor(2.0)},
    )  # fmt: skip


TARGETS = BoxTargets(torch.zeros(0, 2, 4), torch.zeros(0, 2, dtype=torch.bool))


def test_no_positive_gives_zero_with_a_graph():
    key, reference = torch.randn(2, 8, requires_grad=True), torch.randn(3, 8, requires_grad=True)
    losses = MasaCriterion()(output_of(key, reference, [0, 1], [-1, -1, 2]), TARGETS, torch.Generator(), 1.0)
    assert losses["contrastive"] == losses["margin"] == 0
    losses["total"].backward()
    assert key.grad is not None


@pytest.mark.parametrize("keys", [0, 2])
def test_views_without_instances(keys):
    key = torch.randn(keys, 8, requires_grad=True)
    output = output_of(key, torch.randn(0, 8), [0] * keys, [])
    assert MasaCriterion()(output, TARGETS, torch.Generator(), 1.0)["total"].item() == 2


def test_total_is_weighted_and_background_never_matches():
    torch.manual_seed(0)
    output = output_of(torch.randn(2, 8), torch.randn(3, 8), [4, 5], [4, 5, -1])
    losses = MasaCriterion({"margin": 0.5})(output, TARGETS, torch.Generator(), 1.0)
    assert losses["total"].item() == pytest.approx(
        0.25 * losses["contrastive"].item() + 0.5 * losses["margin"].item() + 2
    )
    assert WEIGHTS["margin"] == 1


def test_unknown_weight():
    with pytest.raises(
        ConfigError, match=r"criterion\.weights\.rpn: unknown loss; there are contrastive, margin, rpn_class"
    ):
        MasaCriterion({"rpn": 1.0})
