"""E-SAM frame by frame: linking of entities between frames."""

import numpy as np
import pytest

from entitysam.esam.segmenter import EntityMap
from entitysam.esam.video import IoULinker, overlap_iou, segment_frames


def frame(*rectangles: tuple[int, int, int, int]) -> np.ndarray:
    """Entities 1, 2, ... as (x0, y0, x1, y1) on 20 x 30."""
    ids = np.zeros((20, 30), np.int32)
    for number, (x0, y0, x1, y1) in enumerate(rectangles, start=1):
        ids[y0:y1, x0:x1] = number
    return ids


def test_iou_of_all_pairs():
    a, b = frame((0, 0, 10, 10), (10, 0, 20, 10)), frame((5, 0, 15, 10), (20, 10, 30, 20))
    known = np.array([2, 1])
    expected = [[0.0, 50 / 150], [0.0, 50 / 150]]
    assert np.allclose(overlap_iou(a, b, 2, known), expected)
    assert overlap_iou(a, b, 2, np.zeros(0, np.int64)).shape == (2, 0)


def test_ids_do_not_depend_on_the_order():
    linker = IoULinker()
    first = linker.link(frame((0, 0, 10, 10), (15, 0, 25, 10)), np.array([0.9, 0.8]))
    second = linker.link(frame((16, 0, 26, 10), (1, 0, 11, 10)), np.array([0.95, 0.7]))
    assert first.scores == {1: 0.9, 2: 0.8}
    assert second.scores == {2: 0.95, 1: 0.7}
    assert second.ids[5, 20] == 2
    assert second.ids[5, 5] == 1


def test_too_little_overlap_is_a_new_entity():
    linker = IoULinker(min_iou=0.5)
    linker.link(frame((0, 0, 10, 10)), np.array([0.9]))
    moved = linker.link(frame((5, 0, 15, 10)), np.array([0.9]))  # IoU 1/3
    assert list(moved.scores) == [2]


def test_the_matching_with_the_highest_total_is_used():
    """Both new entities overlap the first old one most; one of them must take the second."""
    linker = IoULinker(min_iou=0.1)
    linker.link(frame((0, 0, 10, 10), (10, 0, 20, 10)), np.array([0.9, 0.9]))
    found = linker.link(frame((0, 0, 6, 10), (6, 0, 16, 10)), np.array([0.9, 0.9]))
    assert sorted(found.scores) == [1, 2]
    assert found.ids[0, 0] == 1


@pytest.mark.parametrize(("max_gap", "expected"), [(0, 2), (1, 1)])
def test_an_entity_keeps_its_id_over_gaps_of_max_gap_frames(max_gap, expected):
    linker = IoULinker(max_gap=max_gap)
    linker.link(frame((0, 0, 10, 10)), np.array([0.9]))
    linker.link(frame(), np.zeros(0))
    assert list(linker.link(frame((0, 0, 10, 10)), np.array([0.9])).scores) == [expected]


def test_frames_of_another_size():
    linker = IoULinker()
    linker.link(frame(), np.zeros(0))
    with pytest.raises(ValueError, match="frame 1 is \\(8, 4\\), the one before \\(30, 20\\)"):
        linker.link(np.zeros((4, 8), np.int32), np.zeros(0))


def test_frames_are_segmented_independently():
    class Counting:
        seen = 0

        def segment(self, image):
            self.seen += 1
            return EntityMap(frame((0, 0, 10, 10)), np.array([0.5], np.float32))

    method = Counting()
    results = segment_frames(method, (np.zeros((20, 30, 3), np.uint8) for _ in range(5)))
    assert next(results).ids.max() == 1
    assert method.seen == 1
    assert [list(result.scores) for result in results] == [[1]] * 4
