"""The edited state against a slow version: the whole video as one array that every edit changes at once."""

import gzip
import random

import numpy as np
import pytest
from support.small_result import moving_squares, write_result

from entitysam.edits.maps import decode_mask, draw_stroke, encode_mask
from entitysam.edits.operations import (
    Delete,
    EditError,
    Join,
    Lock,
    Masks,
    Merge,
    Paint,
    Recolour,
    Rename,
    Split,
    Swap,
)
from entitysam.serve.opened import OpenedResult, StaleError
from entitysam.serve.packing import ByteCache, Runs

T = 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    frames, ids = moving_squares(T, (36, 64))
    return write_result(tmp_path_factory.mktemp("result") / "squares", frames, ids)


@pytest.fixture
def opened(folder, tmp_path):
    with_journal = OpenedResult(folder, journal=tmp_path / "edits.jsonl")
    yield with_journal
    with_journal.close()


def change(volume, edit, locked):
    """An edit on all frames [T, H, W] at once."""
    if isinstance(edit, Merge):
        volume[volume == edit.id] = edit.into
    elif isinstance(edit, Join):
        volume[volume == edit.other] = edit.id
    elif isinstance(edit, Split):
        volume[edit.frame :][volume[edit.frame :] == edit.id] = edit.new
    elif isinstance(edit, Delete):
        part = volume[edit.first : edit.last + 1]
        part[part == edit.id] = 0
    elif isinstance(edit, Swap):
        part = volume[edit.frame :]
        first, second = part == edit.id, part == edit.other
        part[first], part[second] = edit.other, edit.id
    elif isinstance(edit, Lock):
        (locked.add if edit.locked else locked.discard)(edit.id)
    elif isinstance(edit, Paint):
        stroke, frame = draw_stroke(volume.shape[1:], edit.points, edit.radius), volume[edit.frame]
        if edit.erase:
            frame[stroke & (frame == edit.id)] = 0
        else:
            frame[stroke & ~np.isin(frame, list(locked))] = edit.id
    elif isinstance(edit, Masks):
        for number, counts in edit.masks.items():
            frame = volume[int(number)]
            frame[frame == edit.id] = 0
            frame[decode_mask(frame.shape, counts) & ~np.isin(frame, list(locked))] = edit.id


def replay(ids, edits):
    volume, locked = ids.copy(), set()
    for edit in edits:
        change(volume, edit, locked)
    return volume


def random_edit(rng, opened):
    visible, frame = opened.table.visible, rng.randrange(T)
    one, other = rng.choice(visible), rng.choice(visible)
    new = opened.table.largest + 1
    points = [[rng.uniform(0, 64), rng.uniform(0, 36)] for _ in range(rng.randint(1, 3))]
    mask = np.zeros((36, 64), bool)
    mask[rng.randrange(20) :, rng.randrange(40) :] = True
    return rng.choice(
        [
            Merge(id=one, into=other), Split(id=one, frame=frame, new=new), Swap(id=one, other=other, frame=frame),
            Delete(id=one, first=frame, last=min(T - 1, frame + rng.randrange(3))), Join(id=one, other=other),
            Lock(id=one, locked=rng.random() < 0.3), Rename(id=one, name=f"name {frame}"), Recolour(id=one, colour="#102030"),
            Paint(id=rng.choice([one, new]), frame=frame, points=points, radius=rng.uniform(1, 9)),
            Paint(id=one, frame=frame, erase=True, points=points, radius=5.0),
            Masks(id=one, masks={str(frame): encode_mask(mask)}),
        ]
    )  # fmt: skip


def check_state(opened, ids, edits):
    expected = replay(ids, edits)
    for frame in range(T):
        np.testing.assert_array_equal(opened.ids(frame), expected[frame])
    numbers = np.unique(expected[expected > 0]).tolist()
    assert opened.table.visible == numbers
    for number in numbers:
        row = opened.table.rows[number]
        np.testing.assert_array_equal(row.areas, (expected == number).sum((1, 2)), err_msg=f"entity {number}")
        np.testing.assert_array_equal(row.scores > 0, row.areas > 0)


@pytest.mark.parametrize("seed", range(6))
def test_any_sequence_of_edits_is_that_of_the_slow_version(opened, folder, tmp_path, seed):
    rng, (_, ids) = random.Random(seed), moving_squares(T, (36, 64))
    refused = 0
    for _ in range(30):
        draw = rng.random()
        if draw < 0.15 and opened.journal.can_undo:
            opened.undo()
        elif draw < 0.25 and opened.journal.can_redo:
            opened.redo()
        else:
            try:
                opened.edit(random_edit(rng, opened), opened.revision)
            except EditError:
                refused += 1
    assert len(opened.journal.edits) > 5
    assert refused < 25
    check_state(opened, ids, opened.journal.edits)
    again = OpenedResult(folder, journal=tmp_path / "edits.jsonl")  # after a restart
    check_state(again, ids, opened.journal.edits)
    assert again.state() == opened.state()
    while opened.journal.can_undo:
        opened.undo()
    check_state(opened, ids, [])


def test_edits_that_cannot_be_made_say_why(opened):
    opened.edit(Lock(id=3, locked=True))
    before = opened.state()
    for edit, message in [
        (Merge(id=77, into=1), "no entity 77"),
        (Merge(id=3, into=1), "entity 3 is locked"),
        (Paint(id=3, frame=0, points=[[1.0, 1.0]], radius=2.0), "locked"),
        (Merge(id=1, into=1), "with itself"),
        (Join(id=1, other=2), "both entities are on frame 0"),
        (Split(id=4, frame=8, new=9), "not on both sides of frame 8"),
        (Split(id=1, frame=4, new=2), "entity 2 exists"),
        (Delete(id=1, first=5, last=4), "before its first frame"),
        (Delete(id=1, first=5, last=T), f"no frame {T}"),
        (Paint(id=1, frame=T, points=[[1.0, 1.0]], radius=2.0), f"no frame {T}"),
        (Masks(id=1, masks={"x": [1]}), "is no frame"),
        (Masks(id=1, masks={"1": [1]}), "mask"),
    ]:
        with pytest.raises(EditError, match=message):
            opened.edit(edit)
    assert opened.state() == before


def test_an_edit_of_an_older_state_is_refused(opened):
    opened.edit(Rename(id=1, name="ground"), 0)
    with pytest.raises(StaleError):
        opened.edit(Rename(id=1, name="floor"), 0)
    assert opened.table.rows[1].name == "ground"


def test_names_move_with_a_merge_and_entities_have_scores(opened):
    opened.edit(Rename(id=4, name="corner"))
    opened.edit(Merge(id=4, into=3))
    state = {entity["id"]: entity for entity in opened.state()["entities"]}
    assert state[3]["name"] == "corner"
    assert state[3]["score"] == pytest.approx(0.8, abs=0.02)
    assert 4 not in state
    assert opened.state()["done"] == ["corner (4) is named “corner”", "corner (4) merged into corner (3)"]


def test_what_is_packed_can_be_unpacked(opened):
    words = np.frombuffer(gzip.decompress(opened.packed_maps(3, 4)), "<u4")
    assert words[0] == 4
    at = 1
    for frame in range(3, 7):
        count = words[at]
        ids, lengths = words[at + 1 : at + 1 + count], words[at + 1 + count : at + 1 + 2 * count]
        np.testing.assert_array_equal(np.repeat(ids, lengths).reshape(36, 64), opened.ids(frame))
        at += 1 + 2 * count
    assert at == len(words)
    lanes = np.frombuffer(gzip.decompress(opened.lanes()), np.uint8).reshape(4, T)
    np.testing.assert_array_equal(lanes[3] > 0, np.arange(T) < T // 2)
    assert abs(int(lanes[0, 0]) - (1 + 254 * 0.9)) <= 1


def test_frames_are_those_of_the_clip(opened):
    frames, _ = moving_squares(T, (36, 64))
    assert np.abs(opened.frame(7).astype(int) - frames[7]).mean() < 12
    assert opened.packed_frames(0, 3)[:4] == b"\3\0\0\0"


def test_a_cache_keeps_what_was_used_last():
    cache = ByteCache(100)
    for key in "abc":
        cache.put(key, key, 40)
    assert [cache.get(key) for key in "abc"] == [None, "b", "c"]
    cache.get("b")
    cache.put("d", "d", 40)
    assert [cache.get(key) for key in "bcd"] == ["b", None, "d"]


def test_runs_of_a_map():
    ids = np.array([[1, 1, 2], [2, 2, 0]])
    runs = Runs.of(ids)
    assert (runs.ids.tolist(), runs.lengths.tolist()) == ([1, 2, 0], [2, 3, 1])
    assert runs.areas() == {1: 2, 2: 3}
    np.testing.assert_array_equal(runs.expand((2, 3)), ids)
