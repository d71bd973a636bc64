"""Masks as polygons and back, to the pixel."""

import cv2
import numpy as np
import pytest
from matplotlib.path import Path as Outline

from entitysam.exchange.outlines import bridge, fill, to_polygon, trace


def masks():
    rng = np.random.default_rng(0)
    ring = np.zeros((30, 40), bool)
    ring[3:25, 5:30] = True
    ring[8:18, 10:20] = False  # a hole
    ring[11:14, 12:16] = True  # an island in it
    ring[26:29, 33:39] = True  # a second part
    corners = np.eye(6, dtype=bool)  # pixels that touch at corners
    yield from (ring, corners, ~corners, np.ones((5, 7), bool))
    yield rng.random((25, 31)) > 0.5
    yield cv2.GaussianBlur(rng.random((60, 80)), (0, 0), 4) > 0.5


@pytest.mark.parametrize("mask", list(masks()), ids=["ring", "corners", "grid", "full", "noise", "blobs"])
def test_a_polygon_holds_every_pixel(mask):
    polygon = to_polygon(mask)
    np.testing.assert_array_equal(fill([polygon], *mask.shape), mask)
    np.testing.assert_array_equal(fill(trace(mask), *mask.shape), mask)
    # An independent fill by the non-zero rule: the winding number of the middles of the pixels.
    rows, columns = np.mgrid[: mask.shape[0], : mask.shape[1]] + 0.5
    winding = np.zeros(mask.shape, int)
    for (x1, y1), (x2, y2) in zip(polygon, np.roll(polygon, -1, axis=0)):
        crosses = (y1 <= rows) != (y2 <= rows)
        if y1 != y2:
            right = columns < x1 + (rows - y1) * (x2 - x1) / (y2 - y1)
            winding += np.where(crosses & right, 1 if y2 > y1 else -1, 0)
    np.testing.assert_array_equal(winding != 0, mask)


def test_any_polygon_is_filled_as_matplotlib_does():
    rng = np.random.default_rng(1)
    for _ in range(20):
        angles = np.sort(rng.random(9)) * 2 * np.pi
        star = np.stack([20 + 25 * rng.random(9) * np.cos(angles), 15 + 20 * rng.random(9) * np.sin(angles)], axis=1)
        rows, columns = np.mgrid[:30, :40] + 0.5
        inside = Outline(star).contains_points(np.stack([columns.ravel(), rows.ravel()], axis=1)).reshape(30, 40)
        np.testing.assert_array_equal(fill([star], 30, 40), inside)


def test_tolerance_saves_points():
    rows, columns = np.mgrid[:80, :80]
    disk = (rows - 40) ** 2 + (columns - 40) ** 2 < 30**2
    exact, simple = to_polygon(disk), to_polygon(disk, tolerance=1.0)
    assert len(simple) < len(exact) / 4
    found = fill([simple], 80, 80)
    assert (found & disk).sum() / (found | disk).sum() > 0.95
    assert len(bridge(trace(disk))) == len(exact)
