"""PromptGenerator: its attention against PyTorch's, its points against their definition."""

import pytest
import torch

from entitysam.models.dual_encoder import ImageFeatures
from entitysam.models.prompt_generator import PromptGenerator

SIZE, CHANNELS, ENTITIES = 4, 16, 5
CELLS = SIZE * SIZE
IMAGE = 16 * SIZE


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def generator(semantic=True, **options):
    torch.manual_seed(0)
    part = PromptGenerator(ENTITIES, CHANNELS, (2 if semantic else 1) * CHANNELS, heads=4, **options)
    for bias in (part.prompt_attention.in_proj_bias, part.prompt_attention.out_proj.bias):
        torch.nn.init.normal_(bias)  # PyTorch starts them at zero, where mistakes do not show
    return part


def features(semantic=True):
    stride4, stride8 = randn(CHANNELS, 4 * SIZE, 4 * SIZE), randn(CHANNELS, 2 * SIZE, 2 * SIZE)
    return ImageFeatures(stride4, stride8, randn(CELLS, CHANNELS), randn(CELLS, CHANNELS, seed=1) if semantic else None)


@pytest.mark.parametrize("semantic", [True, False])
@pytest.mark.parametrize("maps", [1, ENTITIES], ids=["one map for all", "own maps"])
def test_attention_over_enhanced_features(semantic, maps):
    part, given = generator(semantic), features(semantic)
    conditioned = randn(maps, CELLS, CHANNELS, seed=2)
    enhanced = conditioned.expand(ENTITIES, -1, -1)
    if semantic:
        enhanced = torch.cat([enhanced, given.semantic.expand(ENTITIES, -1, -1)], dim=-1)
    expected, _ = part.prompt_attention(part.prompt_queries.weight[:, None], enhanced, enhanced)
    prompts = part(conditioned, given, torch.zeros(ENTITIES, 2))
    torch.testing.assert_close(prompts.entity_logits, part.entity_head(expected[:, 0]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(prompts.points, part.offset_head(expected[:, 0]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("swap", [True, False], ids=["reference", "paper"])
def test_first_points_are_expected_cells(swap):
    part = generator(swap_first_points=swap)
    conditioned = randn(1, CELLS, CHANNELS, seed=3)
    attended, _ = part.point_attention(conditioned, conditioned, conditioned)
    probability = part.point_head(attended[0]).softmax(dim=0).detach()  # [hw, Q]
    points = part(conditioned, features(), None).points
    for q in range(ENTITIES):
        row = sum(float(probability[cell, q]) * (cell // SIZE) for cell in range(CELLS)) * IMAGE / SIZE
        column = sum(float(probability[cell, q]) * (cell % SIZE) for cell in range(CELLS)) * IMAGE / SIZE
        expected = (row, column) if swap else (column, row)
        assert points[q].tolist() == pytest.approx(expected, abs=1e-3)


def test_first_points_come_from_the_map_of_the_first_entity():
    part = generator()
    maps = randn(ENTITIES, CELLS, CHANNELS)
    assert torch.equal(part(maps, features(), None).points, part(maps[:1], features(), None).points)


def test_points_drift_unless_clamped():
    conditioned, outside = randn(ENTITIES, CELLS, CHANNELS), torch.tensor([[1000.0, -1000.0]]).expand(ENTITIES, -1)
    free = generator()(conditioned, features(), outside).points
    assert (free[:, 0] > IMAGE).all()
    assert (free[:, 1] < 0).all()
    clamped = generator(clamp_points=True)(conditioned, features(), outside)
    assert torch.equal(clamped.points, torch.tensor([[IMAGE - 1.0, 0.0]]).expand(ENTITIES, -1))
    assert torch.equal(clamped.sparse, generator().prompt_encoder(clamped.points, IMAGE))
