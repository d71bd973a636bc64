import numpy as np
import pytest
from benchmarks.review import inject_errors

from entitysam.data.synthetic.render import render_video
from entitysam.edits.review import find_instabilities

SIZE = (60, 100)


def scene(num_frames=10):
    """A still picture of two boxes (2, 3) on a ground (1), and its frames."""
    ids = np.ones((num_frames, *SIZE), np.int32)
    ids[:, 10:30, 10:40], ids[:, 35:55, 50:90] = 2, 3
    colours = np.array([[0, 0, 0], [90, 90, 90], [200, 40, 40], [40, 40, 200], [10, 200, 10]], np.uint8)
    return ids, colours[ids]


def test_nothing_changes_nothing_is_found():
    assert find_instabilities(*scene()) == []


def test_an_exchange_is_the_first_entry():
    ids, frames = scene()
    two, three = ids[6:] == 2, ids[6:] == 3
    ids[6:][two], ids[6:][three] = 3, 2
    first = find_instabilities(ids, frames)[0]
    assert (first.frame, first.kind, set(first.ids)) == (6, "hands", {2, 3})
    assert first.strength > 0.8
    assert first.text.format("2", "3") == "2 becomes 3"


def test_a_new_id_and_a_gap_are_found():
    ids, frames = scene()
    ids[4:][ids[4:] == 2] = 9
    ids[7:9][ids[7:9] == 3] = 0
    found = [(f.frame, f.kind, f.ids) for f in find_instabilities(ids, frames)[:2]]
    assert sorted(found) == [(4, "hands", (2, 9)), (7, "death", (3,))]


def test_an_object_that_leaves_is_less_odd_than_one_that_is_lost():
    ids, frames = scene()
    ids[5:][ids[5:] == 2] = 1
    frames[5:][ids[5:] == 1] = 90  # the picture changes with it
    lost = ids.copy()
    lost[5:][lost[5:] == 3] = 1  # only the map changes
    both = find_instabilities(lost, frames)
    assert both[0].ids == (3, 1)
    assert both[0].strength > 5 * max([f.strength for f in both if f.ids == (2, 1)], default=0)


def test_scores_and_sizes():
    ids, frames = scene()
    ids[4:, 10:30, 28:40] = 1
    frames[4:, 10:30, 28:40] = 90
    scores = {3: np.where(np.arange(10) < 8, 0.9, 0.3), 2: np.full(10, 0.7)}
    found = {(f.frame, f.kind, f.ids) for f in find_instabilities(ids, frames, scores)}
    assert {(4, "size", (2,)), (8, "score", (3,))} <= found


@pytest.mark.parametrize("with_frames", [True, False])
def test_injected_errors_are_in_the_first_twenty_entries(with_frames):
    frames, ids, _ = render_video([3, 77], 48, (96, 160))
    wrong, errors = inject_errors(ids, np.random.default_rng(3), 4)
    counted = []
    found = find_instabilities(wrong, frames if with_frames else None, on_frame=lambda: counted.append(1))[:20]
    missed = [e for e in errors if not any(abs(f.frame - e[0]) <= 1 and e[2] & set(f.ids) for f in found)]
    assert len(errors) == 4
    assert missed == []
    assert len(counted) == 48
