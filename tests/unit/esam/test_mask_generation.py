"""MMG: Eq. (1) to (4), computed by hand."""

import numpy as np
import pytest
import torch
from support.mask_sets import logits_of, make_set, rectangle

from entitysam.esam.mask_generation import (
    MaskGenerationConfig,
    automatic_masks,
    detail_masks,
    generate_masks,
    mean_density,
    object_masks,
)
from entitysam.esam.prompting import (
    OBJECT,
    PART,
    SUBPART,
    PromptedMasks,
    PromptingConfig,
    point_grid,
    prompt,
    stability,
)
from entitysam.esam.superpixels import SuperpixelConfig, compute_superpixels, describe, superpixel_weights
from entitysam.registry import ConfigError


class ScriptedImage:
    """Returns the n-th of the given triples of masks for the n-th point."""

    mask_size = (40, 60)
    features = torch.zeros(1, 4, 6)

    def __init__(self, logits: torch.Tensor, scores: torch.Tensor):
        self.logits, self.scores, self.batches = logits, scores, []

    def predict(self, points):
        first = sum(self.batches)
        self.batches.append(len(points))
        return self.logits[first : first + len(points)], self.scores[first : first + len(points)]


def test_point_grid_is_centred():
    grid = point_grid(2, height=40, width=100)
    assert grid.tolist() == [[25, 10], [75, 10], [25, 30], [75, 30]]


def test_levels_by_area_and_best_by_score():
    small, middle, large = rectangle(2, 2, 6, 6), rectangle(2, 2, 20, 20), rectangle(0, 0, 50, 30)
    logits = torch.stack([torch.stack([logits_of(m) for m in (middle, small, large)])])
    found = prompt(
        ScriptedImage(logits, torch.tensor([[0.91, 0.97, 0.93]])), torch.tensor([[4.0, 4.0]]), PromptingConfig()
    )
    by_level = {int(level): i for i, level in enumerate(found.level)}
    assert torch.equal(found.masks.masks[by_level[OBJECT]], large)
    assert torch.equal(found.masks.masks[by_level[PART]], middle)
    assert torch.equal(found.masks.masks[by_level[SUBPART]], small)
    assert found.is_best.tolist() == [False, True, False]
    assert found.masks.scores[by_level[OBJECT]] == pytest.approx(0.93)


def test_filters_of_sam_and_batches():
    logits = torch.randn(10, 3, 40, 60, generator=torch.Generator().manual_seed(0)) * 3
    logits[4] = logits_of(rectangle(0, 0, 30, 30), 40.0)
    logits[7] = logits_of(rectangle(5, 5, 30, 30), 40.0)
    scores = torch.full((10, 3), 0.95)
    scores[4, 1] = 0.5
    points = torch.arange(20.0).view(10, 2)
    image = ScriptedImage(logits, scores)
    found = prompt(image, points, PromptingConfig(points_per_batch=4))
    assert image.batches == [4, 4, 2]
    # Noise is unstable, point 4 loses the mask with the low score.
    assert found.point.tolist() == [4, 4, 7, 7, 7]
    assert torch.equal(found.masks.points, points[found.point])
    at_once = prompt(ScriptedImage(logits, scores), points, PromptingConfig(points_per_batch=64))
    assert torch.equal(at_once.masks.words, found.masks.words)


def test_object_and_best_only():
    logits = torch.stack([logits_of(rectangle(0, 0, n, n)) for n in (10, 20, 30)])[None]
    image = ScriptedImage(logits, torch.tensor([[0.95, 0.9, 0.92]]))
    found = prompt(image, torch.zeros(1, 2), PromptingConfig(), every_level=False, keep_logits=False)
    assert sorted(found.level.tolist()) == [OBJECT, SUBPART]
    assert found.masks.logits is None


def test_stability_is_the_iou_of_two_thresholds():
    logits = torch.tensor([[[3.0, 0.5, -0.5, -3.0]]])
    assert stability(logits, 1.0).tolist() == [pytest.approx(1 / 3)]


def test_object_map_needs_a_matching_best_mask():
    whole, near, part, merged = (
        rectangle(0, 0, 30, 30),
        rectangle(0, 0, 30, 29),
        rectangle(0, 0, 10, 10),
        rectangle(0, 0, 60, 40),
    )
    prompted = PromptedMasks(
        make_set([whole, near, merged, part, whole], [0.95, 0.94, 0.93, 0.99, 0.96]),
        level=torch.tensor([OBJECT, OBJECT, OBJECT, PART, PART]),
        is_best=torch.tensor([True, True, False, True, True]),
        point=torch.arange(5),
    )
    kept = object_masks(prompted, MaskGenerationConfig())
    # `near` falls to `whole` (IoU 0.97), `merged` matches no best mask (IoU with `whole` 0.375).
    assert torch.equal(kept.masks, whole[None])
    # 0.375 >= gamma_O = 0.3 keeps it.
    assert len(object_masks(prompted, MaskGenerationConfig(object_best_iou=0.3))) == 2


def test_density_is_one_over_area_between_0_and_1():
    labels = torch.zeros(10, 10, dtype=torch.int64)
    labels[:, 5:] = 7  # any label will do
    labels[0, 9] = 3
    pixels = describe(labels)
    assert len(pixels) == 3
    assert pixels.areas.tolist() == [50, 1, 49]
    expected = (1 / torch.tensor([50.0, 1, 49]) - 1 / 50) / (1 - 1 / 50)
    assert torch.allclose(superpixel_weights(pixels.areas), expected)
    assert pixels.density[0, 9] == 1
    assert pixels.density[0, 0] == 0
    assert pixels.centroids[0].tolist() == [2.5, 5.0]


def test_uniform_superpixels_have_no_density():
    assert superpixel_weights(torch.tensor([4.0, 4.0])).tolist() == [0, 0]
    assert superpixel_weights(torch.tensor([9.0])).tolist() == [0]


def test_adaptive_nms_keeps_more_where_it_is_crowded():
    a, b = rectangle(0, 0, 20, 10), rectangle(0, 0, 20, 12)  # IoU 0.83
    masks = make_set([a, b], [0.95, 0.9])
    calm, crowded = torch.zeros(40, 60), torch.full((40, 60), 0.9)
    config = MaskGenerationConfig(base_nms=0.7)
    assert len(detail_masks(masks, calm, config)) == 1
    assert len(detail_masks(masks, crowded, config)) == 2
    # max(N_t, D): a density below N_t changes nothing.
    assert len(detail_masks(masks, torch.full((40, 60), 0.5), config)) == 1


def test_mean_density_over_a_mask():
    density = torch.rand(40, 60, generator=torch.Generator().manual_seed(0))
    masks = [rectangle(3, 4, 30, 20), rectangle(0, 0, 1, 1)]
    expected = torch.stack([density[m].mean() for m in masks])
    assert torch.allclose(mean_density(make_set(masks, [1, 1]), density), expected)


def test_switched_off_gives_automatic_masks():
    whole, part, other = rectangle(0, 0, 30, 30), rectangle(0, 0, 10, 10), rectangle(1, 0, 30, 30)
    prompted = PromptedMasks(
        make_set([whole, part, other], [0.9, 0.95, 0.89]),
        level=torch.tensor([OBJECT, PART, OBJECT]),
        is_best=torch.tensor([False, True, True]),
        point=torch.arange(3),
    )
    superpixels = describe(torch.zeros(40, 60, dtype=torch.int64))
    off = MaskGenerationConfig(enabled=False)
    assert torch.equal(generate_masks(prompted, superpixels, off).objects.masks, whole[None])
    found = generate_masks(prompted, superpixels, off, refined_later=False)
    assert torch.equal(found.objects.masks, torch.stack([part, whole]))
    assert torch.equal(found.objects.words, automatic_masks(prompted.masks, MaskGenerationConfig()).words)


@pytest.mark.parametrize("method", ["felzenszwalb", "slic"])
@pytest.mark.parametrize("size", [(1, 1), (3, 200), (90, 120)])
def test_superpixels_cover_the_grid(method, size):
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (3, *size), dtype=np.uint8))
    found = compute_superpixels(image, (20, 30), SuperpixelConfig(method=method, max_side=64))
    assert found.labels.shape == (20, 30)
    assert torch.equal(found.labels.unique(), torch.arange(len(found)))
    assert found.areas.sum() == 600


def test_unknown_superpixel_method():
    with pytest.raises(ConfigError, match="no method called 'watershed'"):
        SuperpixelConfig(method="watershed")
