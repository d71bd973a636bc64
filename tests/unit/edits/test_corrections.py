"""Corrections of another program, through a real file of CVAT whose tracks are numbered anew."""

from xml.etree import ElementTree

import numpy as np
import pytest
from support.small_result import moving_squares, write_result

from entitysam.edits.corrections import Track, find_corrections
from entitysam.edits.maps import encode_mask
from entitysam.edits.operations import Delete, EditError, Lock, Masks, Rename
from entitysam.exchange import export_result, import_result
from entitysam.exchange.formats.cvat import read_cvat
from entitysam.exchange.video import decode, read_result
from entitysam.serve.opened import OpenedResult

T, SIZE = 8, (36, 64)
_, IDS = moving_squares(T, SIZE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_result(tmp_path_factory.mktemp("result") / "squares", *moving_squares(T, SIZE))


@pytest.fixture
def opened(folder, tmp_path):
    result = OpenedResult(folder, journal=tmp_path / "edits.jsonl")
    yield result
    result.close()


def in_cvat(folder, path, *changes):
    """Exports a result to CVAT, changes the XML, and numbers the tracks as CVAT does when it writes them: from 0."""
    export_result(folder, "cvat", path)
    tree = ElementTree.parse(path)
    root = tree.getroot()
    tracks = {int(track.get("id")): track for track in root.findall("track")}
    for change in changes:
        change(root, tracks)
    for number, track in enumerate(root.findall("track")):
        track.set("id", str(number))
    tree.write(path)
    return path


def tracks_of(path):
    found = []
    for entity in read_cvat(path).entities:
        masks = {frame: encode_mask(decode(instance.mask)) for frame, instance in entity.instances.items()}
        found.append(Track(entity.name or "", masks))
    return found


def take_over(opened, path):
    now = opened.snapshot()
    found = find_corrections(tracks_of(path), now.table, opened.shape, now.ids)
    opened.edit_all(found.edits, now.revision)
    return found


def square(track, frame, x, y, side=9):
    """Draws the shape of a track on a frame anew."""
    shape = next(shape for shape in track if shape.get("frame") == str(frame))
    shape.set("points", f"{x},{y};{x + side},{y};{x + side},{y + side};{x},{y + side}")


def remove(number):
    return lambda root, tracks: root.remove(tracks[number])


def test_what_nobody_has_changed_gives_no_edits(folder, opened, tmp_path):
    found = take_over(opened, in_cvat(folder, tmp_path / "a.xml"))
    assert (found.edits, found.summary, opened.revision) == ([], "nothing differs", 0)


def test_shapes_names_new_and_deleted_tracks_become_edits(folder, opened, tmp_path):
    def change(root, tracks):
        square(tracks[3], 2, 20, 20)
        square(tracks[3], 5, 21, 21)
        tracks[2].set("label", "red box")
        new = ElementTree.SubElement(root, "track", label="lamp")
        corners = "50,2;56,2;56,8;50,8"
        ElementTree.SubElement(new, "polygon", frame="4", keyframe="1", outside="0", points=corners)
        ElementTree.SubElement(new, "polygon", frame="6", keyframe="1", outside="1", points=corners)

    path = in_cvat(folder, tmp_path / "a.xml", change, remove(4))
    found = take_over(opened, path)
    assert (found.changed, found.new, found.deleted, found.refused) == ([2, 3], [5], [4], [])
    assert found.summary == "2 changed, 1 new, 1 deleted"
    assert {type(edit) for edit in found.edits} == {Delete, Masks, Rename, Lock}
    expected = IDS.copy()
    expected[expected == 4] = 0
    for frame, place in ((2, 20), (5, 21)):
        expected[frame][expected[frame] == 3] = 0
        expected[frame][place : place + 9, place : place + 9] = 3
    expected[4:6, 2:8, 50:56] = 5
    for frame in range(T):
        np.testing.assert_array_equal(opened.ids(frame), expected[frame], err_msg=f"frame {frame}")
    state = {entity["id"]: (entity["name"], entity["locked"]) for entity in opened.state()["entities"]}
    assert state == {1: ("", False), 2: ("red box", True), 3: ("", True), 5: ("lamp", True)}
    with pytest.raises(EditError, match="locked"):
        opened.edit(Delete(id=3, first=0, last=1))
    while opened.journal.can_undo:
        opened.undo()
    for frame in range(T):
        np.testing.assert_array_equal(opened.ids(frame), IDS[frame])


def test_the_maps_are_those_that_convert_makes_of_the_file(folder, opened, tmp_path):
    path = in_cvat(folder, tmp_path / "a.xml", lambda root, tracks: square(tracks[2], 3, 40, 24), remove(3))
    take_over(opened, path)
    import_result(path, "cvat", tmp_path / "converted")
    for frame, converted in enumerate(read_result(tmp_path / "converted").id_maps()):
        numbers = np.array([0, 1, 2, 0, 3])  # convert numbers the tracks as the file does
        np.testing.assert_array_equal(numbers[opened.ids(frame)], converted)


def test_a_track_that_was_cut_in_two_keeps_its_id_on_the_longer_part(folder, opened, tmp_path):
    def cut(root, tracks):
        new = ElementTree.SubElement(root, "track", label="entity")
        for shape in list(tracks[2])[5:]:
            tracks[2].remove(shape)
            new.append(shape)
        last = tracks[2][-1]
        ElementTree.SubElement(tracks[2], "polygon", {**last.attrib, "frame": "5", "outside": "1"})

    found = take_over(opened, in_cvat(folder, tmp_path / "a.xml", cut))
    assert (found.changed, found.new) == ([2], [5])
    expected = IDS.copy()
    expected[5:][expected[5:] == 2] = 5
    for frame in range(T):
        np.testing.assert_array_equal(opened.ids(frame), expected[frame])


def test_locked_entities_stay_and_foreign_files_are_refused(folder, opened, tmp_path):
    opened.edit(Lock(id=3, locked=True))
    found = take_over(opened, in_cvat(folder, tmp_path / "a.xml", remove(3), remove(4)))
    assert (found.deleted, found.refused) == ([4], [3])
    assert "locked: 3" in found.summary
    np.testing.assert_array_equal(opened.ids(0) == 3, IDS[0] == 3)
    for masks, message in (({T: [1]}, f"no frame {T}"), ({0: [5, 5]}, "another size")):
        with pytest.raises(EditError, match=message):
            find_corrections([Track("", masks)], opened.table, opened.shape, opened.ids)


@pytest.mark.parametrize("seed", range(4))
def test_any_corrected_video_is_reached(opened, seed):
    """Random regions with no relation to the result: after the edits the maps are those of the tracks, but for overlaps."""
    rng = np.random.default_rng(seed)
    target = np.zeros((T, *SIZE), int)
    for number in range(1, 6):
        for frame in range(rng.integers(T), T):
            y, x = rng.integers(0, 24), rng.integers(0, 48)
            target[frame, y : y + 12, x : x + 16] = number
    numbers = [number for number in range(1, 6) if (target == number).any()]
    tracks = [
        Track("", {frame: encode_mask(target[frame] == n) for frame in range(T) if (target[frame] == n).any()})
        for n in numbers
    ]
    now = opened.snapshot()
    opened.edit_all(find_corrections(tracks, now.table, SIZE, now.ids).edits, now.revision)
    for frame in range(T):
        found = opened.ids(frame)
        np.testing.assert_array_equal(found > 0, target[frame] > 0)
        assert len(set(zip(found.ravel().tolist(), target[frame].ravel().tolist()))) == len(np.unique(target[frame]))
