"""Online entities: stable ids, running confidences, and events."""

import numpy as np
import pytest
import torch

from entitysam.inference.online import OnlineEntities
from entitysam.inference.panoptic import merge
from entitysam.structures import Event

SIZE = (8, 8)


def strips(*present):
    """Logits [4, 8, 8] where each entity that is present owns two rows of its own."""
    logits = torch.full((4, *SIZE), -9.0)
    for q in present:
        logits[q, 2 * q : 2 * q + 2] = 9.0
    return logits


def play(entities, visible, scores=(0.9, 0.8, 0.7, 0.6)):
    """Updates with the entities visible on each frame; returns (ids, scores, events) per frame."""
    results = []
    for present in visible:
        entities.count(torch.tensor(scores))
        results.append(entities.update(strips(*present), SIZE))
    return results


def test_born_lost_and_back():
    results = play(OnlineEntities(patience=2), [[0, 2], [0], [0, 1], [0], [0, 2]])
    assert [events for _, _, events in results] == [
        [Event("born", 1), Event("born", 3)],
        [],
        [Event("born", 2), Event("lost", 3)],
        [],
        [Event("back", 3), Event("lost", 2)],
    ]


def test_a_short_absence_is_no_event():
    results = play(OnlineEntities(patience=3), [[1], [], [], [1]])
    assert [events for _, _, events in results] == [[Event("born", 2)], [], [], []]


def test_an_entity_is_lost_once():
    results = play(OnlineEntities(patience=1), [[1], [], [], []])
    assert [events for _, _, events in results] == [[Event("born", 2)], [Event("lost", 2)], [], []]


def test_ids_do_not_depend_on_other_entities():
    first, second = play(OnlineEntities(), [[0, 1, 3], [3]])
    assert [sorted(np.unique(ids)) for ids, _, _ in (first, second)] == [[0, 1, 2, 4], [0, 4]]
    np.testing.assert_array_equal(first[0] == 4, second[0] == 4)
    assert first[0].dtype == np.int32


def test_a_map_is_the_merge_of_its_frame_with_other_ids():
    logits = torch.randn(4, *SIZE, generator=torch.Generator().manual_seed(0)) * 3
    scores = torch.tensor([0.9, 0.2, 0.7, 0.6])
    entities = OnlineEntities(overlap_threshold=0.1)
    entities.count(scores)
    ids, _, _ = entities.update(logits, SIZE)
    (merged,), queries = merge(logits[:, None], scores, SIZE, overlap_threshold=0.1)
    np.testing.assert_array_equal(ids, np.concatenate([[0], queries + 1])[merged])
    assert len(queries) > 1


def test_confidence_is_the_median_of_the_window():
    entities = OnlineEntities(window=3)
    for value, expected in ((0.2, 0.2), (0.4, 0.3), (0.9, 0.4), (0.8, 0.8), (0.1, 0.8)):
        entities.count(torch.tensor([value, 0.01]))
        assert entities.update(strips(0, 1)[:2], SIZE)[1] == {1: pytest.approx(expected)}


IDLE, PRESENT = 0.002, 0.8


def first_shown(start, scores, **settings):
    """The frame on which entity 2 is first on the map; its scores begin at frame `start`, entity 1 is always there."""
    entities = OnlineEntities(**settings)
    for frame in range(start + len(scores)):
        score = scores[frame - start] if frame >= start else IDLE
        entities.count(torch.tensor([0.9, score]))
        if frame >= start - 1 and (entities.update(strips(0, 1)[:2], SIZE)[0] == 2).any():
            return frame
    return None


@pytest.mark.parametrize("threshold", [0.05, 0.5])
@pytest.mark.parametrize("start", [10, 500, 5000])
def test_a_late_entity_is_shown_as_soon_as_an_early_one(start, threshold):
    assert first_shown(start, [PRESENT] * 20, score_threshold=threshold) == start + 3


@pytest.mark.parametrize("start", [10, 500, 5000])
def test_a_flicker_is_not_shown(start):
    for frames in (1, 2, 3):
        assert first_shown(start, [1.0] * frames + [IDLE] * 20) is None


def test_an_entity_that_drops_out_for_a_frame_stays():
    entities = OnlineEntities()
    for frame in range(30):
        entities.count(torch.tensor([IDLE if frame == 20 else PRESENT]))
        assert entities.update(strips(0)[:1], SIZE)[0].any()


def test_no_mask_passes_the_filters():
    ((ids, scores, events),) = play(OnlineEntities(), [[0, 1]], scores=(0.0, 0.0, 0.0, 0.0))
    assert not ids.any()
    assert (scores, events) == ({}, [])


def test_a_state_continues_in_another_object():
    visible = [[0, 2], [0], [0], [0, 2], [1]]
    expected = play(OnlineEntities(patience=2), visible)
    first, second = OnlineEntities(patience=2), OnlineEntities(patience=2)
    play(first, visible[:2])
    second.load_state(first.state())
    rest = play(second, visible[2:])
    for (ids, scores, events), (other_ids, other_scores, other_events) in zip(rest, expected[2:]):
        np.testing.assert_array_equal(ids, other_ids)
        assert (scores, events) == (other_scores, other_events)


def test_a_kept_state_does_not_change_with_its_entities():
    entities = OnlineEntities()
    play(entities, [[0]])
    kept = entities.state()
    recent, known = len(kept["recent"]), [entity["last_seen"] for entity in kept["registry"]["entities"]]
    play(entities, [[0], [0, 1]])
    assert len(kept["recent"]) == recent
    assert [entity["last_seen"] for entity in kept["registry"]["entities"]] == known
