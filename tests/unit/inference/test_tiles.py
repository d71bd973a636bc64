"""Tiles: they cover the frame, show more entities than queries, and give one id across seams."""

import numpy as np
import pytest
from support.perfect_network import PerfectNetwork, frame_of, moving_strips, pairs

from entitysam.inference.segmenter import VideoSegmenter
from entitysam.inference.tiles import (
    SeamStitcher,
    TiledVideo,
    blank,
    cut_tiles,
    grid_for,
    stream_tiles,
    unclaimed,
)
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


def test_the_second_pass_finds_what_a_crowded_tile_leaves():
    """All 96 entities are in the left half: a tile of 1x2 shows 50."""
    dense = np.zeros(SIZE, int)
    for number in range(96):
        row, column = divmod(number, 8)
        dense[8 * row + 1 : 8 * row + 6, 7 * column + 1 : 7 * column + 6] = number + 1
    frames = [frame_of(dense)] * 3
    without = TiledVideo(segmenter(), frames, SIZE, (1, 2))
    assert without.saturated
    assert len(without.scores) < 70
    tiled = TiledVideo(segmenter(), frames, SIZE, (1, 2), second_pass=True)
    assert not tiled.saturated
    assert len(tiled.scores) == 96
    assert tiled.frame_scores.shape == (96, 3)
    streamed = [result.ids for result in stream_tiles(segmenter(), frames, (1, 2), second_pass=True)]
    for found in (tiled.iter_ids(), streamed):
        assert len(pairs([dense] * 3, found)) == 97


def test_the_second_pass_shows_nothing_twice():
    ids, rest = np.zeros((8, 8), np.int32), np.zeros((8, 8), np.int32)
    ids[:, :4] = 7
    rest[:, 1:5] = 1  # three quarters of it are claimed
    rest[:, 6:] = 2
    rest[:2, 3:5] = 3  # half of it
    found = unclaimed(rest, ids)
    assert np.unique(found).tolist() == [0, 2, 3]
    assert not found[ids > 0].any()
    frame = np.full((8, 8, 3), 9, np.uint8)
    assert (blank(frame, ids)[:, :4] == 0).all()
    assert (blank(frame, ids)[:, 4:] == 9).all()


@pytest.mark.parametrize("entities", [60, 100, 120, 200])
def test_entities_picks_tiles_and_second_pass_that_find_so_many(entities):
    """Of `entities` in rows over a wide frame, all are found."""
    columns = 20
    ids = np.zeros((96, 160), int)
    for number in range(entities):
        row, column = divmod(number, columns)
        ids[9 * row + 1 : 9 * row + 7, 8 * column + 1 : 8 * column + 6] = number + 1
    grid = grid_for(entities, 50, ids.shape)
    tiled = TiledVideo(segmenter(), [frame_of(ids)], ids.shape, grid, second_pass=True)
    print(f"{entities} entities: {grid[0]}x{grid[1]} tiles and a second pass find {len(tiled.scores)}")
    assert len(tiled.scores) == entities


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
    assert rows * columns * 25 + 50 >= entities
    assert rows <= columns
