"""Identities apart from queries: new things, handovers, returns, and long videos."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from entitysam.inference.identity import EntityRegistry, Impostors, mask_iou, pool_appearance
from entitysam.structures import Event

SIZE = (12, 24)
RED, BLUE = torch.eye(4)[0], torch.eye(4)[1]


def play(registry, frames, num_queries=3):
    """Frames of {query: (column, appearance)}, squares of 6 x 6 -> ids on each frame by query, events on each frame."""
    ids, events = [], []
    for frame in frames:
        queries, appearance = np.zeros(SIZE, np.int32), torch.zeros(num_queries, 4)
        for query, (column, look) in frame.items():
            queries[3:9, column : column + 6] = query + 1
            appearance[query] = 0 if look is None else look
        found, changes = registry.update(queries, torch.full((num_queries,), 0.9), appearance)
        ids.append({query: int(found[4, column]) for query, (column, _) in frame.items()})
        events.append(changes)
    return ids, events


def test_a_moving_entity_keeps_its_id():
    for look in (RED, None):
        ids, events = play(EntityRegistry(), [{1: (column, look)} for column in (0, 4, 8, 12)])
        assert ids == [{1: 2}] * 4
        assert events == [[Event("born", 2)], [], [], []]


def test_a_jump_starts_a_new_entity():
    ids, events = play(EntityRegistry(), [{1: (0, RED)}, {1: (12, BLUE)}, {1: (12, BLUE)}])
    assert ids == [{1: 2}, {1: 4}, {1: 4}]
    assert events[1] == [Event("born", 4), Event("recycled", 2)]
    assert events[2] == []
    assert play(EntityRegistry(), [{1: (0, None)}, {1: (12, None)}])[0] == [{1: 2}, {1: 4}]


def test_a_jump_of_the_same_appearance_is_a_fast_entity():
    assert play(EntityRegistry(), [{1: (0, RED)}, {1: (12, RED)}])[0] == [{1: 2}, {1: 2}]


def test_another_appearance_at_the_same_place_is_a_new_entity():
    assert play(EntityRegistry(), [{1: (0, RED)}, {1: (3, BLUE)}])[0] == [{1: 2}, {1: 4}]


def test_another_thing_at_the_place_of_a_lost_one_is_new():
    for gap, number in ((0, 2), (10, 4)):
        assert play(EntityRegistry(), [{1: (0, RED)}, *[{}] * gap, {1: (0, BLUE)}])[0][-1] == {1: number}
    assert play(EntityRegistry(), [{1: (0, RED)}, *[{}] * 10, {1: (0, RED)}])[0][-1] == {1: 2}


def test_a_return_that_may_be_either_of_two_is_a_new_entity():
    twins = {0: (0, RED), 1: (12, RED)}
    assert play(EntityRegistry(), [twins, *[{}] * 50, {2: (6, RED)}])[0][-1] == {2: 3}


@pytest.mark.parametrize("look", [RED, None])
def test_an_entity_that_another_query_picks_up_keeps_its_id(look):
    ids, events = play(EntityRegistry(), [{0: (3, look)}, {2: (4, look)}, {2: (5, look)}])
    assert ids == [{0: 1}, {2: 1}, {2: 1}]
    assert events[1:] == [[], []]


def test_queries_that_swap_their_entities():
    first, second = {0: (0, RED), 1: (12, BLUE)}, {0: (12, BLUE), 1: (0, RED)}
    assert play(EntityRegistry(), [first, second])[0] == [{0: 1, 1: 2}, {0: 2, 1: 1}]
    plain = [{q: (column, None) for q, (column, _) in frame.items()} for frame in (first, second)]
    assert play(EntityRegistry(), plain)[0] == [{0: 1, 1: 2}, {0: 2, 1: 1}]


def test_a_return_is_decided_by_appearance():
    away = [{}] * 50
    ids, events = play(EntityRegistry(), [{0: (0, RED)}, *away, {2: (15, RED)}])
    assert ids[-1] == {2: 1}
    assert events[3] == [Event("lost", 1)]
    assert events[-1] == [Event("back", 1)]
    for before, after in ((RED, BLUE), (None, None)):
        assert play(EntityRegistry(), [{0: (0, before)}, *away, {0: (0, after)}])[0][-1] == {0: 4}


def test_without_appearance_a_return_needs_the_place_and_the_query():
    for gap, number in ((29, 1), (30, 4)):
        assert play(EntityRegistry(memory=30), [{0: (0, None)}, *[{}] * gap, {0: (1, None)}])[0][-1] == {0: number}


def test_an_hour_without_entities():
    """An hour at 1 frame/s changes nothing; who was there before is known afterwards."""
    registry, empty, scores = EntityRegistry(), np.zeros((4, 4), np.int32), torch.full((3,), 0.1)
    play(registry, [{0: (0, RED)}])
    for frame in range(3600):
        ids, events = registry.update(empty, scores, None)
        assert not ids.any()
        assert events == ([Event("lost", 1)] if frame == 2 else [])
    assert len(registry.entities) == 1
    assert registry.scores() == {}
    assert play(registry, [{1: (12, RED), 2: (0, BLUE)}]) == ([{1: 1, 2: 3}], [[Event("back", 1), Event("born", 3)]])


def test_two_masks_never_get_one_id():
    ids, _ = play(EntityRegistry(), [{0: (0, RED)}, {0: (0, RED), 1: (12, RED)}])
    assert ids[-1] == {0: 1, 1: 2}


def test_the_registry_is_bounded():
    registry = EntityRegistry(capacity=5, memory=2)
    looks = F.normalize(torch.randn(50, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    for n, look in enumerate(looks):
        play(registry, [{n % 3: (6 * (n % 4), look)}])
    assert len(registry.entities) == 5
    assert sum(entity.mask is not None for entity in registry.entities.values()) <= 2


def test_a_state_continues_in_another_registry(tmp_path):
    frames = [{0: (0, RED)}, {0: (3, RED), 1: (12, BLUE)}, {1: (0, RED)}, {}, {0: (12, BLUE), 2: (0, None)}]
    expected = play(EntityRegistry(patience=1), frames)
    first, second = EntityRegistry(patience=1), EntityRegistry(patience=1)
    play(first, frames[:2])
    torch.save(first.state(), tmp_path / "state")
    play(first, frames[2:])
    second.load_state(torch.load(tmp_path / "state", weights_only=True))
    assert play(second, frames[2:]) == tuple(part[2:] for part in expected)


def test_mask_iou_of_cropped_masks():
    rng = np.random.default_rng(0)
    for _ in range(20):
        masks = [np.zeros(SIZE, np.int32) for _ in range(2)]
        for mask in masks:
            top, left = rng.integers(0, 8, 2)
            mask[top : top + 5, left : left + 9] = rng.random((5, 9))[: 12 - top] < 0.7
        (a,), (b,) = (list(EntityRegistry()._observe(mask, torch.ones(1), None)) for mask in masks)
        both, either = (masks[0] & masks[1]).sum(), (masks[0] | masks[1]).sum()
        assert mask_iou(a, b) == pytest.approx(both / either)


def test_appearance_is_the_mean_token_under_the_mask_less_that_of_the_frame():
    tokens = torch.tensor([[1.0, 5], [3, 5], [0, 5], [0, 5]])  # a grid of 2 x 2
    logits = torch.full((3, 4, 4), -1.0)
    logits[0, :2, :2] = 1  # cell 0
    logits[1, :2] = 1  # cells 0 and 1
    pooled = pool_appearance(tokens, logits)
    torch.testing.assert_close(pooled, torch.tensor([[0.0, 0], [1, 0], [0, 0]]))


def test_impostors_against_all_pairs():
    rng = np.random.default_rng(0)
    seen, impostors = rng.uniform(-1, 1, 500), Impostors()
    impostors.add(np.append(seen, np.nan))
    for similarity in (*rng.uniform(-1, 1, 50), -1.0, 1.0):
        for candidates in (1, 7):
            low = np.floor((similarity + 1) / 2 * 400) / 400 * 2 - 1  # of the bin
            expected = (seen >= low).sum() * candidates <= 0.05 * 500
            assert impostors.allow(np.array([similarity]), candidates)[0] == expected
    assert Impostors().allow(np.array([0.9]), 1000)[0]  # nothing is known against it


def test_looks_that_do_not_tell_entities_apart_do_not_count():
    """Two entities of nearly the same look are side by side for long; what comes back later may be either, or new."""
    near = F.normalize(RED + 0.2 * BLUE, dim=0)
    pair = [{0: (0, RED), 1: (12, near)}] * 5
    away = [{}] * 50
    assert RED @ near > 0.95
    looks = F.normalize(RED + torch.tensor([0.0, 0, 0.2, 0]), dim=0)
    assert play(EntityRegistry(), [{0: (0, RED)}, *away, {2: (15, looks)}])[0][-1] == {2: 1}
    assert play(EntityRegistry(), [*pair, *away, {2: (15, looks)}])[0][-1] == {2: 3}
