"""Colours that stay with ids, tints and outlines where they belong, labels inside, an even contact sheet."""

import numpy as np
import pytest

from entitysam.visualization.contact_sheet import CAPTION, MARGIN, ContactSheet
from entitysam.visualization.overlay import draw_entities, find_outlines, id_colours, label_positions, oklab


def test_colours_belong_to_ids():
    ids = np.array([[0, 1], [2, 300]])
    colours = id_colours(ids)
    assert colours.shape == (2, 2, 3)
    assert colours.dtype == np.uint8
    np.testing.assert_array_equal(colours[0, 0], 0)
    for place in np.ndindex(2, 2):
        np.testing.assert_array_equal(colours[place], id_colours(int(ids[place])))
    np.testing.assert_array_equal(id_colours(256), id_colours(1))


def test_colours_are_well_separated():
    def smallest_distance(count):
        lab = oklab(id_colours(np.arange(1, count + 1)))
        distances = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
        return distances[~np.eye(count, dtype=bool)].min()

    # OKLab distance 0.02 is about one just noticeable step.
    assert smallest_distance(10) > 0.2
    assert smallest_distance(30) > 0.1
    assert smallest_distance(255) > 0.02


def test_oklab_of_known_colours():
    """Values from the definition's own page: white is (1, 0, 0); pure red is (0.628, 0.225, 0.126)."""
    np.testing.assert_allclose(oklab(np.array([255, 255, 255])), [1, 0, 0], atol=1e-4)
    np.testing.assert_allclose(oklab(np.array([255, 0, 0])), [0.62796, 0.22486, 0.12585], atol=1e-4)


def border_there(ids: np.ndarray, y: int, x: int, reach: int) -> bool:
    """Whether a pixel within `reach` rows and columns of (y, x) differs from its left or upper neighbour."""
    for v in range(max(y - reach, 0), min(y + reach + 1, ids.shape[0])):
        for u in range(max(x - reach, 0), min(x + reach + 1, ids.shape[1])):
            if (u > 0 and ids[v, u] != ids[v, u - 1]) or (v > 0 and ids[v, u] != ids[v - 1, u]):
                return True
    return False


def test_outlines_against_brute_force():
    ids = np.zeros((12, 14), np.int32)
    ids[2:9, 3:9] = 1
    ids[5:11, 7:12] = 2
    outline, border = find_outlines(ids, width=2)
    for y, x in np.ndindex(*ids.shape):
        left_or_above = [ids[y, x - 1]] * (x > 0) + [ids[y - 1, x]] * (y > 0)
        assert border[y, x] == any(other != ids[y, x] for other in left_or_above)
        near = border_there(ids, y, x, reach=2)
        assert outline[y, x] == (near and ids[y, x] > 0 and not border[y, x])
    whole_outline, whole_border = find_outlines(np.ones((6, 6), np.int32), width=2)
    assert not whole_outline.any()
    assert not whole_border.any()


def test_draw_tints_entities_and_leaves_the_rest():
    frame = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    ids = np.zeros((60, 80), np.int32)
    ids[10:50, 10:40] = 7
    before = frame.copy()
    drawn = draw_entities(frame, ids, opacity=0.5, labels=False)
    np.testing.assert_array_equal(frame, before)
    assert drawn.dtype == np.uint8
    np.testing.assert_array_equal(drawn[:, 60:], frame[:, 60:])
    expected = np.rint((frame[20, 20].astype(float) + id_colours(7)) / 2)
    np.testing.assert_allclose(drawn[20, 20], expected, atol=1)
    np.testing.assert_array_equal(drawn[11, 20], id_colours(7))
    np.testing.assert_array_equal(draw_entities(frame, np.zeros_like(ids)), frame)


def test_labels_are_written_inside_their_entity_and_only_where_they_fit():
    frame = np.full((240, 320, 3), 100, np.uint8)
    ids = np.zeros((240, 320), np.int32)
    ids[40:200, 40:200] = 12
    ids[10:14, 250:300] = 3
    with_labels, without = draw_entities(frame, ids), draw_entities(frame, ids, labels=False)
    changed = np.argwhere((with_labels != without).any(-1))
    assert len(changed) > 20
    assert (ids[tuple(changed.T)] == 12).all()
    assert (with_labels[tuple(changed.T)] > 240).all(-1).any()  # white


def test_label_positions():
    ids = np.zeros((100, 200), np.int32)
    ids[20:60, 0:200] = 5  # long: many places are equally wide, the middle one is wanted
    ids[70:90, 100:120] = 9
    (first, (x, y), radius), (second, (x2, y2), radius2) = label_positions(ids)
    assert (first, second) == (5, 9)
    assert abs(x - 100) < 2
    assert abs(y - 40) < 4
    assert 17 < radius <= 21
    assert abs(x2 - 109.5) < 3
    assert abs(y2 - 79.5) < 3
    assert 8 < radius2 <= 11
    assert label_positions(np.zeros((4, 4), np.int32)) == []


def test_label_positions_of_a_ring_are_in_the_ring():
    y, x = np.mgrid[:800, :800]
    distance = np.hypot(y - 400, x - 400)
    ids = ((distance > 250) & (distance < 380)).astype(np.int32)
    ((_, (column, row), _),) = label_positions(ids)
    assert ids[int(row), int(column)] == 1


@pytest.mark.parametrize("length", [1, 3, 8, 33, 40, 1000])
def test_contact_sheet_frames_are_evenly_chosen_and_few_are_kept(length):
    sheet = ContactSheet(count=8)
    frame = np.zeros((6, 10, 3), np.uint8)
    for index in range(length):
        sheet.add(str(index), frame, frame)
    chosen = [int(name) for name in sheet.chosen()]
    assert len(chosen) == min(8, length)
    assert chosen[0] == 0
    assert len(sheet._kept) <= 33
    if length >= 8:
        gaps = np.diff(chosen)
        assert gaps.max() <= 1.5 * gaps.mean() + 1
        assert chosen[-1] >= 0.9 * length - 1


def test_contact_sheet_layout():
    sheet = ContactSheet(count=8, columns=4, width=40)
    for index in range(5):
        frame = np.full((40, 80, 3), 10 * index, np.uint8)
        sheet.add(f"{index:05d}", frame, 255 - frame)
    image = np.asarray(sheet.draw("a clip"))
    assert image.shape[1] == 4 * (40 + MARGIN) + MARGIN
    top, left = 2 * MARGIN + 2 * CAPTION, MARGIN + 3 * (40 + MARGIN)
    np.testing.assert_array_equal(image[top + 5, left + 5], 30)  # frame 3: fourth column
    np.testing.assert_array_equal(image[top + 20 + 10, left + 5], 225)  # its overlay below
    with pytest.raises(ValueError, match="at least one frame"):
        ContactSheet().draw("nothing")


def test_predictions_of_half_the_size(small_video):
    frame = small_video[0]
    ids = np.zeros((24, 40), np.int32)
    ids[:, 20:] = 70000
    drawn = draw_entities(frame, ids, labels=False)
    np.testing.assert_array_equal(drawn, draw_entities(frame, ids.repeat(2, 0).repeat(2, 1), labels=False))
    sheet = ContactSheet()
    sheet.add("a", frame, drawn[::2, ::2])
    assert sheet.draw("half").height > 2 * 48


def test_a_name_with_line_breaks_is_drawn_in_one_line():
    frame = np.zeros((30, 40, 3), np.uint8)
    drawn = []
    for name in ("a b", "a\nb"):
        sheet = ContactSheet()
        sheet.add(name, frame, frame)
        drawn.append(np.asarray(sheet.draw(name)))
    np.testing.assert_array_equal(*drawn)
    ids = np.ones((90, 120), int)
    overlays = [draw_entities(np.zeros((90, 120, 3), np.uint8), ids, names={1: name}) for name in ("a b", "a\nb")]
    np.testing.assert_array_equal(*overlays)
