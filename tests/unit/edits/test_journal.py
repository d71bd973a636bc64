import json
import os

import pytest

from entitysam.edits.journal import Journal, JournalError
from entitysam.edits.operations import EditError, Merge, Rename, Split, describe, read_edit
from entitysam.io.files import OutputError

FIRST, SECOND, THIRD = Rename(id=1, name="cat “é”"), Merge(id=3, into=2), Split(id=2, frame=4, new=9)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "edits.jsonl"


def test_edits_survive_and_can_be_undone_without_limit(path):
    journal = Journal(path, "a")
    for edit in (FIRST, SECOND, THIRD):
        journal.do(edit)
    assert journal.undo() == THIRD
    assert journal.undo() == SECOND
    assert (journal.edits, journal.undone) == ([FIRST], [SECOND, THIRD])
    journal = Journal(path, "a")
    assert (journal.edits, journal.undone, journal.revision) == ([FIRST], [SECOND, THIRD], 5)
    assert journal.redo() == SECOND
    journal.do(FIRST)
    assert Journal(path, "a").edits == [FIRST, SECOND, FIRST]
    with pytest.raises(EditError, match="nothing to redo"):
        journal.redo()
    for _ in range(3):
        journal.undo()
    with pytest.raises(EditError, match="nothing to undo"):
        journal.undo()


def test_nothing_is_taken_out_of_the_file(path):
    journal = Journal(path, "a")
    sizes = []
    for step in (lambda: journal.do(FIRST), journal.undo, journal.redo, journal.undo, lambda: journal.do(SECOND)):
        before = path.read_bytes() if path.exists() else b""
        step()
        assert path.read_bytes().startswith(before)
        sizes.append(path.stat().st_size)
    assert sizes == sorted(set(sizes))


def test_every_line_that_is_cut_off_is_lost_alone(path):
    journal = Journal(path, "a")
    for edit in (FIRST, SECOND, THIRD):
        journal.do(edit)
    content = path.read_bytes()
    start = content.rindex(b"\n", 0, len(content) - 1) + 1
    for cut in range(start, len(content)):
        path.write_bytes(content[:cut])
        again = Journal(path, "a")
        assert again.edits == [FIRST, SECOND]
        again.do(FIRST)
        assert Journal(path, "a").edits == [FIRST, SECOND, FIRST]
    path.write_bytes(content[:5])  # even the head
    again = Journal(path, "a")
    again.do(THIRD)
    assert Journal(path, "a").edits == [THIRD]


def test_edits_of_another_run_are_set_aside(path):
    Journal(path, "a").do(FIRST)
    content = path.read_bytes()
    for expected in ("edits-a.jsonl", "edits-a-2.jsonl"):
        path.write_bytes(content)
        journal = Journal(path, "b")
        assert (journal.edits, journal.set_aside.name) == ([], expected)
        assert journal.set_aside.read_bytes() == content
        assert not path.exists()


def test_another_program_is_noticed(path):
    first, second = Journal(path, "a"), Journal(path, "a")
    first.do(FIRST)
    with pytest.raises(EditError, match="another program"):
        second.do(SECOND)
    assert Journal(path, "a").edits == [FIRST]
    assert second.edits == []


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["[]"], "line 1: no JSON object"),
        (['{"journal": 9, "result": "a"}'], "line 1: not a journal"),
        (['{"journal": 1, "result": "a"}', "x"], "line 2: no JSON object"),
        (['{"journal": 1, "result": "a"}', '{"undo": 1}'], "line 2: nothing to undo"),
        (['{"journal": 1, "result": "a"}', '{"do": {"kind": "explode", "id": 1}}'], "line 2: no edit"),
        (['{"journal": 1, "result": "a"}', "{}"], "line 2: neither"),
    ],
)
def test_what_is_no_journal_is_named(path, lines, message):
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(JournalError, match=message):
        Journal(path, "a")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_refuses_the_edit(path, monkeypatch):
    journal = Journal(path, "a")
    journal.do(FIRST)
    before = path.read_bytes()
    write = os.write

    def half(descriptor, data):  # some bytes fit, then none
        if len(data) > 10:
            return write(descriptor, data[:10])
        with open("/dev/full", "wb", buffering=0) as full:
            return full.write(data)

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OutputError, match="No space left"):
        journal.do(SECOND)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert journal.edits == [FIRST]
    journal.do(THIRD)
    assert Journal(path, "a").edits == [FIRST, THIRD]


@pytest.mark.parametrize(
    "value",
    [
        None, [], {}, {"kind": "merge"}, {"kind": "merge", "id": 0, "into": 1}, {"kind": "merge", "id": 1, "into": 2**24},
        {"kind": "merge", "id": True, "into": 2}, {"kind": "merge", "id": 1.0, "into": 2}, {"kind": "merge", "id": 1, "into": 2, "x": 1},
        {"kind": "rename", "id": 1, "name": "a\nb"}, {"kind": "rename", "id": 1, "name": "a" * 201},
        {"kind": "recolour", "id": 1, "colour": "red"}, {"kind": "split", "id": 1, "frame": -1, "new": 2},
        {"kind": "paint", "id": 1, "frame": 0, "points": [], "radius": 2.0},
        {"kind": "paint", "id": 1, "frame": 0, "points": [[1.0]], "radius": 2.0},
        {"kind": "paint", "id": 1, "frame": 0, "points": [[1.0, float("nan")]], "radius": 2.0},
        {"kind": "paint", "id": 1, "frame": 0, "points": [[1.0, 1.0]], "radius": 1e9},
    ],
)  # fmt: skip
def test_what_is_no_edit_is_refused(value):
    with pytest.raises(EditError):
        read_edit(value)


def test_edits_are_plain_data():
    for edit in (FIRST, SECOND, THIRD):
        assert read_edit(json.loads(json.dumps(edit.model_dump(mode="json")))) == edit
    assert describe(SECOND) == "3 merged into 2"
