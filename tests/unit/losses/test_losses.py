"""The criterion against a slow, literal reading of its definition, and at its edges."""

import math

import pytest
import torch
import torch.nn.functional as F

from entitysam.losses import EntityCriterion, entity_loss, iou_loss, mask_losses, match, matching_cost
from entitysam.losses.points import draw_points, most_uncertain_points, sample_masks
from entitysam.ops import point_sample
from entitysam.registry import CRITERIA, ConfigError, build
from entitysam.structures import ClipOutput, Targets


def random_clip(queries=6, targets=3, frames=2, side=32, seed=0, requires_grad=False):
    generator = torch.Generator().manual_seed(seed)
    output = ClipOutput(
        entity_logits=torch.randn(queries, 2, generator=generator).requires_grad_(requires_grad),
        iou=torch.rand(queries, frames, generator=generator).requires_grad_(requires_grad),
        mask_logits=(3 * torch.randn(queries, frames, side // 4, side // 4, generator=generator)).requires_grad_(
            requires_grad
        ),
    )
    masks = torch.rand(targets, frames, side, side, generator=generator) > 0.6
    return output, Targets(masks, torch.full((targets,), -1))


def test_sample_masks_equals_grid_sample():
    masks = torch.rand(3, 2, 13, 17) > 0.5
    points = torch.cat(
        [torch.rand(3, 200, 2), torch.tensor([[[0.0, 0.0], [1.0, 1.0], [0.0, 1.0]]]).expand(3, -1, -1)], 1
    )
    torch.testing.assert_close(sample_masks(masks, points), point_sample(masks.float(), points), rtol=0, atol=1e-5)
    centre_of_first_cell = torch.tensor([[[0.5 / 17, 0.5 / 13]]]).expand(3, -1, -1)
    assert torch.equal(sample_masks(masks, centre_of_first_cell)[..., 0] > 0.5, masks[..., 0, 0])


def test_matching_cost_by_brute_force():
    output, targets = random_clip(queries=4, targets=3, frames=2)
    points = torch.rand(50, 2)
    cost = matching_cost(output.entity_logits, output.mask_logits, targets.masks, points)
    for q in range(4):
        for n in range(3):
            x, t = [], []
            for frame in range(2):
                x.append(point_sample(output.mask_logits[q, frame][None, None], points[None])[0, 0])
                t.append(point_sample(targets.masks[n, frame][None, None].float(), points[None])[0, 0])
            x, t = torch.cat(x), torch.cat(t)
            p = 1 / (1 + torch.exp(-x))
            bce = -(t * p.log() + (1 - t) * (1 - p).log()).mean()
            dice = 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
            scores = [math.exp(5 / (1 + math.exp(-float(logit)))) for logit in output.entity_logits[q]]
            entity = -scores[1] / sum(scores)
            torch.testing.assert_close(cost["mask"][q, n], bce, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(cost["dice"][q, n], dice, rtol=1e-5, atol=1e-6)
            assert cost["entity"][q, n].item() == pytest.approx(entity, rel=1e-5)
            assert cost["total"][q, n].item() == pytest.approx(float(5 * bce + 5 * dice + 3 * entity), rel=1e-5)


def test_match_finds_the_cheapest_pairs():
    cost = torch.tensor([[1.0, 9.0], [9.0, 9.0], [9.0, 1.0]])
    queries, targets = match(cost)
    assert queries.tolist() == [0, 2]
    assert targets.tolist() == [0, 1]
    assert match(torch.rand(2, 5))[0].tolist() == [0, 1]  # more targets than queries: all queries are used
    assert len(match(torch.full((3, 2), float("nan")))[0]) == 2


def test_entity_loss_by_hand():
    # Query 0 is matched. Focal terms: 0.5 (1 - p)^2 (-log p) for each of the four logits, all with p = 1/2.
    logits = torch.zeros(2, 2)
    expected = 4 * 0.5 * 0.25 * math.log(2) + math.log(2)
    assert entity_loss(logits, torch.tensor([0])).item() == pytest.approx(expected, rel=1e-6)
    certain = torch.tensor([[-20.0, 20.0], [-20.0, -20.0]])
    assert entity_loss(certain, torch.tensor([0])).item() == pytest.approx(0, abs=1e-6)
    assert entity_loss(certain, torch.tensor([1])).item() > 10


def test_mask_losses_normaliser_and_perfect_mask():
    masks = torch.zeros(1, 2, 8, 8, dtype=torch.bool)
    masks[..., :4] = True
    points = torch.rand(2, 64, 2) * torch.tensor([0.3, 1.0])  # all inside the mask
    points[..., 1] = points[..., 1] * 0.8 + 0.1
    logits = torch.where(F.interpolate(masks.float(), size=(8, 8)) > 0, 50.0, -50.0)
    cross_entropy, dice = mask_losses(logits, masks, points + torch.tensor([0.07, 0.0]), 2)
    assert cross_entropy.item() == pytest.approx(0, abs=1e-5)
    assert dice.item() == pytest.approx(0, abs=1e-5)
    wrong = mask_losses(-logits, masks, points + torch.tensor([0.07, 0.0]), 2)[0]
    halved = mask_losses(-logits, masks, points + torch.tensor([0.07, 0.0]), 4)[0]
    assert wrong.item() == pytest.approx(50, rel=1e-3)
    assert halved.item() == pytest.approx(wrong.item() / 2)


def test_iou_loss_counts_only_overlapping_frames():
    masks = torch.zeros(1, 2, 16, 16, dtype=torch.bool)
    masks[0, 0, :8] = True
    logits = torch.full((1, 2, 4, 4), -1.0)
    logits[0, 0, 0] = 1.0  # frame 0: one of the two rows of cells -> IoU 1/2; frame 1: nothing there
    pred = torch.tensor([[0.9, 0.9]], requires_grad=True)
    loss = iou_loss(pred, logits, masks)
    assert loss.item() == pytest.approx(0.5 * (0.9 - 0.5) ** 2, rel=1e-5)
    loss.backward()
    assert pred.grad[0, 1] == 0
    assert pred.grad[0, 0] != 0


def test_most_uncertain_points_are_nearest_to_the_border():
    logits = torch.linspace(-8, 8, 64)[None, None, :].expand(1, 64, 64)  # zero crossing in the middle column
    # Inside, because zeros beyond the border of the image count as uncertain.
    candidates = 0.05 + 0.9 * torch.rand(1, 300, 2, generator=torch.Generator().manual_seed(0))
    points = most_uncertain_points(logits, candidates, 100)
    assert points.shape == (1, 100, 2)
    assert (points[..., 0] - 0.5).abs().max() < 0.3
    assert (points[..., 1] - 0.5).abs().max() > 0.3


def test_criterion_total_and_gradients():
    output, targets = random_clip(requires_grad=True)
    criterion = EntityCriterion(num_points=64, weights={"iou": 2.0})
    losses = criterion(output, targets, torch.Generator().manual_seed(1))
    expected = 5 * (losses["entity"] + losses["mask"] + losses["dice"]) + 2 * losses["iou"]
    torch.testing.assert_close(losses["total"], expected)
    losses["total"].backward()
    for tensor in (output.entity_logits, output.iou, output.mask_logits):
        assert torch.isfinite(tensor.grad).all()
        assert tensor.grad.abs().sum() > 0
    again = criterion(output, targets, torch.Generator().manual_seed(1))
    assert again["total"].item() == losses["total"].item()
    other = criterion(output, targets, torch.Generator().manual_seed(2))
    assert other["mask"].item() != losses["mask"].item()


def test_half_of_the_loss_points_are_uncertain():
    criterion = EntityCriterion(num_points=400)
    logits = torch.linspace(-8, 8, 64)[None, None, None, :].expand(2, 3, 64, 64)
    points = criterion.loss_points(logits, torch.Generator().manual_seed(0))
    assert points.shape == (6, 400, 2)
    distance = (points[..., 0] - 0.5).abs()
    assert distance[:, :200].max() < 0.15  # the nearest 200 of 1200 uniform candidates
    assert distance[:, 200:].max() > 0.4


def test_num_masks_scales_only_the_mask_losses():
    output, targets = random_clip()
    criterion = EntityCriterion(num_points=64)
    one, two = (criterion(output, targets, torch.Generator().manual_seed(0), num_masks=n) for n in (6.0, 12.0))
    default = criterion(output, targets, torch.Generator().manual_seed(0))
    for name in ("mask", "dice"):
        assert one[name].item() == pytest.approx(2 * two[name].item())
        assert one[name].item() == default[name].item()  # 3 targets x 2 frames
    for name in ("entity", "iou"):
        assert one[name].item() == two[name].item()


def test_clip_without_targets_is_zero_with_a_graph():
    output, targets = random_clip(targets=0, requires_grad=True)
    losses = EntityCriterion(num_points=64)(output, targets)
    assert all(loss.item() == 0 for loss in losses.values())
    losses["total"].backward()
    for tensor in (output.entity_logits, output.iou, output.mask_logits):
        assert tensor.grad is not None
        assert torch.count_nonzero(tensor.grad) == 0


def test_more_targets_than_queries():
    output, targets = random_clip(queries=2, targets=5)
    losses = EntityCriterion(num_points=64)(output, targets)
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_float32_inside_autocast():
    output, targets = random_clip()
    half = ClipOutput(output.entity_logits.bfloat16(), output.iou.bfloat16(), output.mask_logits.bfloat16())
    exact = ClipOutput(half.entity_logits.float(), half.iou.float(), half.mask_logits.float())
    criterion = EntityCriterion(num_points=64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = criterion(half, targets, torch.Generator().manual_seed(0))
    outside = criterion(exact, targets, torch.Generator().manual_seed(0))
    assert inside["total"].dtype == torch.float32
    assert inside["total"].item() == outside["total"].item()


def test_non_finite_output_gives_a_non_finite_loss_and_no_crash():
    output, targets = random_clip()
    output.mask_logits[:] = float("nan")
    losses = EntityCriterion(num_points=64)(output, targets)
    assert not torch.isfinite(losses["total"])


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_non_finite_logit_of_an_unmatched_query_leaves_loss_and_gradients_finite(value):
    """In fp16 a logit of an unmatched query may overflow; none of the losses depends on it."""
    output, targets = random_clip()
    output.mask_logits[5, 0, 2, 3] = value  # as an overflow in fp16 leaves it
    output.mask_logits[5] += 1000.0  # the worst query of all, which is not matched
    tensors = [output.entity_logits, output.iou, output.mask_logits]
    for tensor in tensors:
        tensor.requires_grad_()
    criterion = EntityCriterion(num_points=64)
    assert 5 not in criterion.match(output, targets, torch.Generator().manual_seed(1))[0]
    losses = criterion(output, targets, torch.Generator().manual_seed(1))
    assert all(torch.isfinite(loss) for loss in losses.values())
    losses["total"].backward()
    assert all(torch.isfinite(tensor.grad).all() for tensor in tensors)


def test_built_by_name_and_unknown_weight():
    criterion = build(CRITERIA, {"name": "entity", "num_points": 10}, "criterion")
    assert isinstance(criterion, EntityCriterion)
    with pytest.raises(ConfigError, match=r"criterion\.weights\.maks"):
        build(CRITERIA, {"name": "entity", "weights": {"maks": 1.0}}, "criterion")
    with pytest.raises(ConfigError, match=r"criterion\.num_pionts"):
        build(CRITERIA, {"name": "entity", "num_pionts": 1}, "criterion")


def test_draw_points_uses_the_generator():
    a, b = (draw_points((3, 4), torch.device("cpu"), torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(a, b)
    assert a.shape == (3, 4, 2)
