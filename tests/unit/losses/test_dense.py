"""Losses on every cell: hand-worked cases, and each extension of the criterion by what it changes."""

import pytest
import torch
import torch.nn.functional as F

from entitysam.losses import EntityCriterion
from entitysam.losses.dense import DenseTargets, best_iou, dense_cost, dense_losses, entity_at, void_share
from entitysam.registry import ConfigError
from entitysam.structures import ClipOutput, Targets


def halves():
    """Two targets, left and right half of an 8 x 8 image; masks of 2 x 2 cells."""
    masks = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    masks[0, ..., :4], masks[1, ..., 4:] = True, True
    return Targets(masks, torch.zeros(2, dtype=torch.int64))


def output(mask_logits, entity=None, points=None, layers=None):
    count = len(mask_logits)
    entity = torch.zeros(count, 2) if entity is None else entity
    return ClipOutput(entity, torch.full((count, 1), 0.5), mask_logits, points, layers)


LEFT = torch.tensor([[5.0, -5.0], [5.0, -5.0]])


def test_cells_are_averages():
    targets = halves()
    targets.masks[0, 0, 0, :4] = False
    dense = DenseTargets.of(targets, 2)
    assert dense.cover[0, 0].tolist() == [0.75, 0, 1, 0]
    assert dense.known.tolist() == [[1, 1, 1, 1]]


def test_cost_equals_the_plain_formula():
    logits = torch.randn(3, 1, 2, 2)
    dense = DenseTargets.of(halves(), 2)
    mask, dice = dense_cost(logits, dense)
    for q in range(3):
        for n in range(2):
            x, t = logits[q].flatten(), dense.cover[n].flatten()
            assert mask[q, n] == pytest.approx(F.binary_cross_entropy_with_logits(x, t).item(), abs=1e-5)
            p = x.sigmoid()
            assert dice[q, n] == pytest.approx((1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)).item(), abs=1e-5)


def test_unknown_cells_count_in_no_loss():
    logits, cover = torch.tensor([[9.0, -9.0, 9.0, 9.0]]), torch.tensor([[1.0, 0, 0, 0]])
    mask, dice = dense_losses(logits, cover, torch.tensor([[1.0, 1, 0, 0]]))
    assert mask.item() < 1e-3
    assert dice.item() < 1e-3
    assert dense_losses(logits, cover, torch.ones(1, 4))[0].item() > 4


def test_best_iou_by_hand():
    masks = torch.stack([LEFT, torch.full((2, 2), 5.0), torch.full((2, 2), -5.0)])[:, None]
    assert best_iou(masks, DenseTargets.of(halves(), 2)).flatten().tolist() == [1.0, 0.5, 0.0]


def test_entity_under_a_point():
    points = torch.tensor([[[1.0, 6.0]], [[6.4, 0.0]], [[-3.0, 2.0]]])
    assert entity_at(points, halves()).flatten().tolist() == [0, 1, 0]
    nothing = Targets(torch.zeros(1, 1, 8, 8, dtype=torch.bool), torch.zeros(1, dtype=torch.int64))
    assert entity_at(points, nothing).flatten().tolist() == [-1, -1, -1]


def test_void_share():
    targets = halves()
    targets.masks[0, ..., :4, :] = False
    masks = torch.stack([LEFT, -LEFT])[:, None]
    assert void_share(masks, DenseTargets.of(targets, 2, ignore_void=True)).tolist() == [0.5, 0.0]
    assert void_share(masks, DenseTargets.of(targets, 2)).tolist() == [0.0, 0.0]


def test_unmatched_queries_learn_the_entity_under_their_point():
    masks = torch.stack([LEFT, -LEFT, torch.zeros(2, 2)])[:, None].requires_grad_()
    points = torch.tensor([[[1.0, 1.0]], [[6.0, 1.0]], [[6.0, 6.0]]])
    criterion = EntityCriterion(every_cell=True, unmatched_masks=1.0)
    criterion(output(masks, points=points), halves(), num_masks=2.0)["total"].backward()
    assert masks.grad[2, 0, 0, 1] < 0 < masks.grad[2, 0, 0, 0]  # towards the right half
    masks.grad = None
    EntityCriterion(every_cell=True)(output(masks, points=points), halves(), num_masks=2.0)["total"].backward()
    assert not masks.grad[2].any()


def test_earlier_layers_are_weighed():
    masks = torch.stack([LEFT, -LEFT])[:, None]
    layers = torch.zeros(1, 2, 1, 2, 2)
    plain = EntityCriterion(every_cell=True)(output(masks, layers=layers), halves(), num_masks=2.0)
    layered = EntityCriterion(every_cell=True, layers=0.5)(output(masks, layers=layers), halves(), num_masks=2.0)
    assert (layered["mask"] - plain["mask"]).item() == pytest.approx(0.5 * torch.tensor(2.0).log().item(), abs=1e-5)


def test_iou_of_all_queries():
    masks = torch.stack([LEFT, -LEFT, torch.full((2, 2), -5.0)])[:, None]
    matched = EntityCriterion(every_cell=True)(output(masks), halves(), num_masks=2.0)["iou"]
    everyone = EntityCriterion(every_cell=True, iou_of_all=True)(output(masks), halves(), num_masks=2.0)["iou"]
    assert matched.item() == pytest.approx(0.125)  # both errors are 0.5
    assert everyone.item() == pytest.approx(0.125)
    masks[2] = LEFT  # a duplicate with IoU 1, predicted 0.5
    sure = ClipOutput(torch.zeros(3, 2), torch.tensor([[1.0], [1.0], [0.5]]), masks)
    assert EntityCriterion(every_cell=True, iou_of_all=True)(sure, halves(), num_masks=2.0)["iou"] > 0.04


def test_a_query_on_unlabelled_pixels_is_no_false_positive():
    targets = halves()
    targets = Targets(targets.masks[:1], targets.categories[:1])
    masks = torch.stack([LEFT, -LEFT])[:, None]
    entity = torch.tensor([[0.0, 3.0], [0.0, 3.0]])
    ignored = EntityCriterion(every_cell=True, ignore_void=True)(output(masks, entity), targets, num_masks=1.0)
    counted = EntityCriterion(every_cell=True)(output(masks, entity), targets, num_masks=1.0)
    assert counted["entity"] > ignored["entity"] + 0.5


def test_no_targets_no_loss_but_a_graph():
    none = Targets(torch.zeros(0, 1, 8, 8, dtype=torch.bool), torch.zeros(0, dtype=torch.int64))
    masks = torch.randn(3, 1, 2, 2, requires_grad=True)
    criterion = EntityCriterion(every_cell=True, ignore_void=True, layers=0.5, unmatched_masks=1.0)
    losses = criterion(output(masks, points=torch.zeros(3, 1, 2)), none)
    losses["total"].backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert masks.grad is not None


def test_extensions_need_every_cell():
    with pytest.raises(ConfigError, match="every_cell"):
        EntityCriterion(layers=1.0)
