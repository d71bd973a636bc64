"""Tiles: they cover the frame, show more entities than queries, and give one id across seams."""

import numpy as np
import pytest
from support.perfect_network import PerfectNetwork, frame_of, moving_strips, pairs

from entitysam.inference.segmenter import VideoSegmenter
from entitysam.inference.tiles import SeamStitcher, TiledVideo, cut_tiles, grid_for, stream_tiles
from entitysam.structures import Event

SIZE = (96, 120)


def segmenter(num_queries=50, reuse=True):
    return VideoSegmenter(PerfectNetwork(num_queries, reuse=reuse), hole_area=0)


def squares():
    """A frame with 120 entities."""
    ids = np.zeros(SIZE, int)
    for number in range(120):
        row, column = divmod(number, 12)
        ids[9 * row + 2 : 9 * row + 8, 10 * column + 2 : 10 * column + 8] = number + 1
    return ids


@pytest.mark.parametrize("grid", [(1, 1), (2, 2), (1, 3), (3, 2)])
def test_tiles_cover_the_frame_and_overlap(grid):
    tiles, covered = cut_tiles(SIZE, grid), np.zeros(SIZE, int)
    assert len(tiles) == grid[0] * grid[1]
    for tile in tiles:
        tile.view(covered)[:] += 1
    assert covered.min() == 1
    assert covered.max() == (1 if grid == (1, 1) else 2 * 2 if min(grid) > 1 else 2)


def test_120_entities_on_one_frame():
    truth = [squares()] * 2
    frames = [frame_of(ids) for ids in truth]
    whole = segmenter().segment(frames)
    assert whole.saturated
    assert len(whole.scores) == 50
    tiled = TiledVideo(segmenter(), frames, SIZE, (2, 2))
    assert len(tiled.scores) >= 115
    assert not tiled.saturated
    streamed = [result.ids for result in stream_tiles(segmenter(), frames, (2, 2))]
    for found in (tiled.iter_ids(), streamed):
        same = pairs(truth, found)
        assert len(same) == len({number for _, number in same}) == 121  # exact masks: one id each, and the background


@pytest.mark.parametrize("grid", [(1, 2), (2, 2)])
def test_an_entity_that_crosses_a_seam_keeps_its_id(grid):
    truth = moving_strips(30, 2)
    frames = [frame_of(ids) for ids in truth]
    # Offline, the id of an entity in a tile is its query, as published.
    assert len(pairs(truth, TiledVideo(segmenter(8, reuse=False), frames, truth.shape[1:], grid).iter_ids())) == 3
    results = list(stream_tiles(segmenter(8), frames, grid))
    assert len(pairs(truth, [result.ids for result in results])) == 3
    assert [event for result in results for event in result.events if event.kind == "born"] == [
        Event("born", number) for number in range(1, 3)
    ]


def test_an_entity_larger_than_a_tile_is_one():
    ids = np.ones(SIZE, int)
    ids[40:60, 50:70] = 2
    for grid in ((2, 2), (3, 3)):
        tiled = TiledVideo(segmenter(8), [frame_of(ids)], SIZE, grid)
        assert len(pairs([ids], tiled.iter_ids())) == 2
        assert len(tiled.scores) == 2


def test_scores_are_those_of_the_best_part():
    frames = [frame_of(ids) for ids in moving_strips(4)]
    tiled = TiledVideo(segmenter(8), frames, (32, 48), (1, 2))
    np.testing.assert_allclose(tiled.scores, 0.9, rtol=1e-5)
    assert tiled.frame_scores.shape == (4, 4)


def test_two_entities_of_one_tile_do_not_become_one():
    tiles = cut_tiles((16, 28), (1, 2))  # columns 0..16 and 12..28
    stitcher = SeamStitcher(tiles, (16, 28))
    left, right = np.zeros((16, 16), np.int32), np.zeros((16, 16), np.int32)
    left[:8], left[8:] = 1, 2
    right[:] = 1  # one entity over both: as large as each of them in the seam
    stitcher.learn([left, right])
    ids = stitcher.compose([left, right])
    assert ids[0, 0] != ids[15, 0]


def test_a_pixel_belongs_to_the_nearest_tile_that_shows_an_entity():
    tiles = cut_tiles((16, 28), (1, 2))
    stitcher = SeamStitcher(tiles, (16, 28))
    left, right = np.zeros((16, 16), np.int32), np.zeros((16, 16), np.int32)
    left[:, 12:] = 1
    stitcher.learn([left, right])
    assert (stitcher.compose([left, right])[0] > 0).tolist() == [12 <= column < 16 for column in range(28)]


def test_small_tiles_are_refused():
    with pytest.raises(ValueError, match="4x4 tiles of a frame of 48x32 pixels are too small: 15x10 pixels"):
        cut_tiles((32, 48), (4, 4))


@pytest.mark.parametrize("entities", [1, 50, 51, 120, 200, 1000])
def test_the_grid_for_a_number_of_entities(entities):
    rows, columns = grid_for(entities, 50, (1080, 1920))
    assert rows * columns * 50 >= entities * (1 if entities <= 50 else 2)
    assert rows <= columns
