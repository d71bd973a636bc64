"""USR: Eq. (9) and (10), computed by hand."""

import pytest
import torch
from support.mask_sets import make_set, rectangle

from entitysam.esam.layers import EntityLayers, stack_masks
from entitysam.esam.prompting import OBJECT, PromptedMasks
from entitysam.esam.recovery import RecoveryConfig, inner_centroids, prompt_points, recover, uncovered_regions
from entitysam.esam.superpixels import describe

CONFIG = RecoveryConfig()


def prompted_masks(masks: list[torch.Tensor], scores: list[float]) -> PromptedMasks:
    """One object mask per prompt."""
    count = len(masks)
    level = torch.full((count,), OBJECT)
    return PromptedMasks(make_set(masks, scores), level, torch.ones(count, dtype=torch.bool), torch.arange(count))


def recovered(layers: EntityLayers, masks: list[torch.Tensor], scores: list[float]) -> EntityLayers:
    return recover(layers, layers.grid_labels(), prompted_masks(masks, scores), len(masks), 0.1, CONFIG)


def test_regions_are_superpixels_that_are_mostly_uncovered():
    labels = torch.zeros(4, 12, dtype=torch.int64)
    labels[:, :2] = 1  # half of the first superpixel
    labels[:, 4] = 1  # a quarter of the second
    superpixels = describe(torch.arange(3).repeat_interleave(4)[None].expand(4, 12).contiguous())
    regions = uncovered_regions(labels, superpixels, CONFIG.min_uncovered)
    assert regions[0].tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2]
    assert uncovered_regions(labels, superpixels, 0.49)[0].tolist() == [0, 0, 1, 1, 0, 2, 2, 2, 3, 3, 3, 3]


def test_a_prompt_is_the_centroid_of_the_surrounding_mask_or_of_the_region():
    regions = rectangle(0, 0, 6, 6).long() + 2 * rectangle(20, 0, 26, 6) + 3 * rectangle(8, 0, 12, 6)
    around = rectangle(0, 0, 14, 14)
    points = prompt_points(regions, make_set([around], [0.9]), CONFIG.min_inside)
    # Regions 1 and 3 lie in the same mask: one prompt, near its centroid (7, 7); region 2 has its own.
    assert len(points) == 2
    assert (points[0] - 7).abs().max() <= 0.5
    assert (points[1] - torch.tensor([23.0, 3.0])).abs().max() <= 0.5


def test_a_mask_surrounds_a_region_from_nine_tenths_on():
    regions = rectangle(0, 0, 10, 10).long()
    details = make_set([rectangle(0, 0, 9, 10), rectangle(0, 0, 8, 30)], [0.8, 0.99])
    point = prompt_points(regions, details, CONFIG.min_inside)[0]
    assert (point - torch.tensor([4.5, 5.0])).abs().max() <= 0.5  # the first mask's, though the second scores higher


def test_the_surrounding_mask_of_highest_score_is_used():
    regions = rectangle(2, 2, 8, 8).long()
    details = make_set([rectangle(0, 0, 20, 20), rectangle(0, 0, 40, 40)], [0.9, 0.95])
    assert (prompt_points(regions, details, 0.9)[0] - 20).abs().max() <= 0.5


def test_a_centroid_outside_its_mask_is_moved_inside():
    ring = rectangle(10, 10, 31, 31) & ~rectangle(12, 11, 29, 30)
    shape = rectangle(5, 5, 25, 25)
    points = inner_centroids(torch.stack([ring, shape]))
    x, y = (points[0] - 0.5).long().tolist()
    assert ring[y, x]
    inside = ring.nonzero().flip(1) + 0.5
    nearest = (inside - torch.tensor([20.5, 20.5])).norm(dim=1).min()
    assert (points[0] - torch.tensor([20.5, 20.5])).norm() == pytest.approx(float(nearest))
    assert (points[1] - 15).abs().max() <= 0.5


def test_without_regions_there_are_no_prompts():
    assert prompt_points(torch.zeros(4, 4, dtype=torch.int64), make_set([], []), 0.9).shape == (0, 2)


def test_a_mask_joins_an_entity_above_rho_and_is_a_new_one_below():
    entity = rectangle(0, 0, 20, 20)
    layers = stack_masks(make_set([entity], [0.9]))
    overlapping = rectangle(0, 0, 30, 20)  # IoU 0.67
    apart = rectangle(35, 0, 55, 30)
    found = recovered(layers, [overlapping, apart], [0.8, 0.7])
    labels = found.grid_labels()
    assert torch.equal(labels == 1, overlapping)
    assert torch.equal(labels == 2, apart)
    assert found.scores.tolist() == [pytest.approx(0.9), pytest.approx(0.7)]


def test_masks_take_uncovered_cells_in_order_of_their_gain():
    entity = rectangle(0, 0, 10, 40)
    layers = stack_masks(make_set([entity], [0.9]))
    wide, inner, beside = rectangle(8, 0, 40, 40), rectangle(10, 0, 30, 40), rectangle(36, 0, 60, 40)
    found = recovered(layers, [inner, wide, beside], [0.99, 0.8, 0.85])
    labels = found.grid_labels()
    # `wide` brings 1200 cells and comes first, `beside` the remaining 800 of its 960; nothing is left for `inner`.
    assert torch.equal(labels == 1, entity)
    assert torch.equal(labels == 2, wide & ~entity)
    assert torch.equal(labels == 3, beside & ~wide)
    assert len(found) == 3


def test_small_gains_are_ignored():
    layers = stack_masks(make_set([rectangle(0, 0, 60, 38)], [0.9]))
    grid = 40 * 60
    for cells, taken in ((2, 0), (3, 1)):  # 0.1 % of the image are 2.4 cells
        assert cells / grid < CONFIG.min_new_area or taken
        assert len(recovered(layers, [rectangle(0, 39, cells, 40)], [0.9])) == 1 + taken


def test_eq_6_selects_one_mask_per_prompt():
    layers = stack_masks(make_set([], []))
    small, large = rectangle(0, 0, 10, 10), rectangle(0, 0, 20, 20)
    for object_score, expected in ((0.9, large), (0.8, small)):
        prompted = PromptedMasks(
            make_set([large, small], [object_score, 0.95]),
            level=torch.tensor([OBJECT, OBJECT + 1]),
            is_best=torch.tensor([False, True]),
            point=torch.zeros(2, dtype=torch.int64),
        )
        found = recover(layers, layers.grid_labels(), prompted, 1, 0.1, CONFIG)
        assert torch.equal(found.grid_labels() == 1, expected)


def test_no_masks_change_nothing():
    layers = stack_masks(make_set([rectangle(0, 0, 20, 20)], [0.9]))
    assert recovered(layers, [], []) is layers
