"""Results of boxes: what is shown, edited and exported; the boxes stay whole."""

import zipfile

import numpy as np
import pytest
from support.small_boxes import SIZE, boxes_of, write_boxes

from entitysam.edits.operations import Delete, EditError, Join, Lock, Masks, Merge, Paint, Rename, Split, Swap
from entitysam.exchange import export_result
from entitysam.exchange.video import read_result
from entitysam.serve.exporting import export
from entitysam.serve.opened import OpenedResult

T = 10


@pytest.fixture
def opened(tmp_path):
    return OpenedResult(write_boxes(tmp_path / "boxes", T))


def test_boxes_are_filled_and_the_smallest_is_on_top(opened):
    for frame in (0, 3, 9):
        expected = np.zeros(SIZE, np.int32)
        found = boxes_of(frame)
        for number in [n for n in (1, 3, 2) if n in found]:  # by size
            x1, y1, x2, y2 = found[number].round().astype(int).clip(0)
            expected[y1:y2, x1:x2] = number
        np.testing.assert_array_equal(opened.ids(frame), expected)
    entities = opened.state()["entities"]
    assert [(e["id"], e["first"], e["last"], e["area"]) for e in entities] == [
        (1, 0, 9, 3136),
        (2, 0, 9, 390),
        (3, 0, 5, 1120),
    ]
    assert opened.describe()["boxes"]


def test_what_was_covered_is_seen_after_a_deletion(opened):
    opened.edit(Delete(id=2, first=0, last=0))
    assert opened.ids(0)[30, 50] == 1
    assert opened.ids(1)[30, 50] == 2


def exported(opened, kind, folder):
    folder.mkdir()
    return export(opened.snapshot(), kind, folder, lambda: None)


def test_exports_have_whole_boxes_and_the_edits(opened, tmp_path):
    opened.edit(Rename(id=2, name="dog"))
    opened.edit(Swap(id=1, other=2, frame=8))
    opened.edit(Split(id=1, frame=4, new=4))
    opened.edit(Merge(id=3, into=1))
    opened.edit(Delete(id=2, first=0, last=0))
    archive = exported(opened, "result", tmp_path / "export")
    with zipfile.ZipFile(archive) as files:
        files.extractall(tmp_path / "again")
    video = read_result(tmp_path / "again")
    shown = {e.id: {frame: instance.box for frame, instance in e.instances.items()} for e in video.entities}

    def box(frame, number):
        x1, y1, x2, y2 = boxes_of(frame)[number]
        return x1, y1, x2 - x1, y2 - y1

    both = (-8.0, 4.0, 68.0, 86.0)  # around 1 and 3
    assert shown == {
        1: {**dict.fromkeys(range(4), both), 4: box(4, 3), 5: box(5, 3)},
        2: {**{t: box(t, 2) for t in range(1, 8)}, 8: box(8, 1), 9: box(9, 1)},
        4: {**{t: box(t, 1) for t in range(4, 8)}, 8: box(8, 2), 9: box(9, 2)},
    }
    assert {e.id: e.name for e in video.entities} == {1: None, 2: "dog", 4: None}
    again = OpenedResult(tmp_path / "again")
    assert [e["name"] for e in again.state()["entities"]] == ["", "dog", ""]
    lines = [line.split(",") for line in (tmp_path / "again" / "tracks.txt").read_text().splitlines()]
    assert [(int(line[0]), int(line[1])) for line in lines] == [
        (t + 1, n) for t in range(T) for n in sorted(shown) if t in shown[n]
    ]
    assert [float(value) for value in lines[0][2:6]] == list(both)


def test_without_edits_a_format_is_that_of_convert(opened, tmp_path):
    export_result(opened.folder, "cvat", tmp_path / "direct.xml")
    assert exported(opened, "cvat", tmp_path / "export").read_text() == (tmp_path / "direct.xml").read_text()


def test_undo_of_everything(opened):
    before = [opened.ids(frame) for frame in range(T)]
    for edit in [Merge(id=2, into=1), Lock(id=1, locked=True), Lock(id=1, locked=False), Delete(id=3, first=0, last=2)]:
        opened.edit(edit)
    with pytest.raises(EditError, match="both entities are on frame 3"):
        opened.edit(Join(id=1, other=3))
    for _ in range(4):
        opened.undo()
    for frame in range(T):
        np.testing.assert_array_equal(opened.ids(frame), before[frame])


def test_nothing_is_painted(opened, tmp_path):
    for edit in [Paint(id=1, frame=0, points=[[1.0, 1.0]], radius=2.0), Masks(id=1, masks={"0": [0, 5]})]:
        with pytest.raises(EditError, match="boxes, which cannot be painted"):
            opened.edit(edit)
    with pytest.raises(ValueError, match="boxes and no id maps"):
        exported(opened, "maps", tmp_path / "maps")
    assert opened.revision == 0


def test_other_boxes_are_another_result(opened, tmp_path):
    opened.edit(Rename(id=1, name="a"))
    path = opened.folder / "tracks.json"
    path.write_text(path.read_text().replace("[4.0, 4.0, 56.0", "[4.0, 4.0, 50.0"))
    assert OpenedResult(opened.folder).journal.set_aside is not None
