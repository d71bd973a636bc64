import numpy as np
import pytest

from entitysam.edits.maps import chain, decode_mask, draw_stroke, edit_map, encode_mask, relabel
from entitysam.edits.operations import Delete, EditError, Lock, Masks, Merge, Paint, Rename, Split, Swap


def distance(shape, points):
    """Distance [H, W] of pixel middles to a line, by the formula."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    best = np.full(shape, np.inf)
    for (ax, ay), (bx, by) in zip(points, points[1:] + points[-1:]):
        length = (bx - ax) ** 2 + (by - ay) ** 2
        t = np.clip(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / (length or 1), 0, 1)
        best = np.minimum(best, np.hypot(x - ax - t * (bx - ax), y - ay - t * (by - ay)))
    return best


@pytest.mark.parametrize("points", [[[20.0, 15.0]], [[5.0, 5.0], [30.5, 20.25]], [[2, 2], [35, 4], [35, 28], [50, 60]]])
@pytest.mark.parametrize("radius", [1.5, 4.0, 9.0])
def test_a_stroke_covers_what_is_near_its_line(points, radius):
    stroke, far = draw_stroke((30, 40), points, radius), distance((30, 40), points)
    assert stroke[far < radius - 1.2].all()
    assert not stroke[far > radius + 1.2].any()
    assert stroke.any()


def test_edits_follow_each_other():
    ids = np.array([[1, 2, 3, 4]])
    edits = [
        Swap(id=1, other=2, frame=0),
        Merge(id=1, into=3),
        Delete(id=4, first=0, last=0),
        Split(id=2, frame=0, new=9),
    ]
    # 1 <-> 2: [2, 1, 3, 4]; 1 -> 3: [2, 3, 3, 4]; 4 goes: [2, 3, 3, 0]; 2 -> 9
    np.testing.assert_array_equal(edit_map(ids, 0, edits), [[9, 3, 3, 0]])
    np.testing.assert_array_equal(ids, [[1, 2, 3, 4]])


def test_edits_begin_and_end_on_their_frames():
    ids = np.array([[1, 2]])
    assert edit_map(ids, 4, [Swap(id=1, other=2, frame=5)]) is ids
    np.testing.assert_array_equal(edit_map(ids, 5, [Swap(id=1, other=2, frame=5)]), [[2, 1]])
    deletion = Delete(id=1, first=2, last=3)
    assert [int(edit_map(ids, t, [deletion])[0, 0]) for t in range(6)] == [1, 1, 0, 0, 1, 1]


def test_a_stroke_spares_locked_entities_and_those_locked_later_not():
    ids = np.ones((9, 9), np.int32)
    ids[:, :4] = 2
    stroke = Paint(id=5, frame=0, points=[[4.5, 4.5]], radius=30.0)
    before = edit_map(ids, 0, [Lock(id=2, locked=True), stroke])
    np.testing.assert_array_equal(before, np.where(ids == 2, 2, 5))
    assert (edit_map(ids, 0, [stroke, Lock(id=2, locked=True)]) == 5).all()
    assert (edit_map(ids, 0, [Lock(id=2, locked=True), Lock(id=2, locked=False), stroke]) == 5).all()
    assert edit_map(ids, 1, [stroke]) is ids


def test_the_eraser_takes_only_from_its_entity():
    ids = np.ones((9, 9), np.int32)
    ids[:, :4] = 2
    erased = edit_map(ids, 0, [Paint(id=2, frame=0, erase=True, points=[[4.5, 4.5]], radius=30.0)])
    np.testing.assert_array_equal(erased, np.where(ids == 2, 0, 1))


def test_new_masks_replace_the_old_ones():
    ids = np.zeros((6, 8), np.int32)
    ids[:, :3], ids[:, 6:] = 7, 4
    mask = np.zeros((6, 8), bool)
    mask[2:5, 2:7] = True
    edits = [Lock(id=4, locked=True), Masks(id=7, masks={"3": encode_mask(mask)})]
    expected = np.where(ids == 4, 4, np.where(mask, 7, 0))
    np.testing.assert_array_equal(edit_map(ids, 3, edits), expected)
    assert edit_map(ids, 2, edits) is ids


@pytest.mark.parametrize("seed", range(3))
def test_masks_as_runs(seed):
    mask = np.random.default_rng(seed).random((7, 5)) < 0.4
    mask[0, 0] = seed == 1
    np.testing.assert_array_equal(decode_mask((7, 5), encode_mask(mask)), mask)
    with pytest.raises(EditError, match="another size"):
        decode_mask((7, 6), encode_mask(mask))


def test_relabelling_copies_only_what_changes():
    ids = np.array([3, 3, 5])
    assert relabel(ids, {4: 1, 3: 3}) is ids
    np.testing.assert_array_equal(relabel(ids, {3: 5, 5: 3}), [5, 5, 3])
    assert chain({1: 2}, {2: 3, 7: 8}) == {1: 3, 2: 3, 7: 8}
    assert edit_map(ids, 0, [Rename(id=3, name="x")]) is ids
