"""Baselines of the class-agnostic table, on small frames."""

from types import SimpleNamespace

import numpy as np
import pytest

from entitysam.engine.methods.baselines import Grid, LinkedESAM, LinkedFrames, StreamedVideo, WholeFrame, parse_baseline
from entitysam.registry import ConfigError

FRAMES = [np.zeros((6, 8, 3), np.uint8)] * 3


def test_whole_frame_and_grid():
    whole = WholeFrame().segment(FRAMES, (6, 8))
    assert [np.unique(ids).tolist() for ids in whole.iter_ids()] == [[1]] * 3
    assert whole.scores.tolist() == [1.0]
    grid = list(Grid(2).segment(FRAMES, (6, 8)).iter_ids())
    assert grid[2][[0, 0, 5, 5], [0, 7, 0, 7]].tolist() == [1, 2, 3, 4]
    assert np.bincount(grid[0].ravel()).tolist() == [0, 12, 12, 12, 12]
    with pytest.raises(ConfigError, match="0 cells"):
        Grid(0)


def moving(order):
    """Per-frame results whose two entities swap numbers where `order` says so; the third comes last."""
    for swapped in order:
        ids = np.zeros((6, 8), np.int32)
        ids[:, :3], ids[:, 4:] = (2, 1) if swapped else (1, 2)
        yield SimpleNamespace(ids=ids, scores=np.array([0.5, 0.9] if swapped else [0.8, 0.6]))


class Fake:
    def __init__(self, order):
        self.results = moving(order)

    def segment(self, frame):
        return next(self.results)


def test_esam_is_linked_over_frames():
    segmented = LinkedESAM(Fake([False, True, False])).segment(FRAMES, (6, 8))
    maps = list(segmented.iter_ids())
    for ids in maps[1:]:
        np.testing.assert_array_equal(ids, maps[0])
    assert segmented.scores == pytest.approx([(0.8 + 0.9 + 0.8) / 3, (0.6 + 0.5 + 0.6) / 3])
    wrong = LinkedESAM(Fake([False])).segment(FRAMES, (8, 6))
    with pytest.raises(ValueError, match="frame is 8x6, its annotation 6x8"):
        list(wrong.iter_ids())


def test_per_frame_entities_keep_their_ids_only_where_masks_overlap():
    def at(out_size):
        columns = iter([0, 1, 5])

        def entities_of(frame):
            ids = np.zeros(out_size, np.int32)
            start = next(columns)
            ids[:, start : start + 3] = 1
            return ids, np.array([0.7])

        return entities_of

    ids = [int(map_.max()) for map_ in LinkedFrames(at, min_iou=0.5).segment(FRAMES, (6, 8)).iter_ids()]
    assert ids == [1, 1, 2]  # IoU 2 / 4, then 0
    ids = [int(map_.max()) for map_ in LinkedFrames(at, min_iou=0.6).segment(FRAMES, (6, 8)).iter_ids()]
    assert ids == [1, 2, 3]


def test_scores_are_means_over_the_frames_of_an_entity():
    ids = np.zeros((2, 2), np.int32)
    streamed = StreamedVideo([(ids, {1: 0.5, 3: 1.0}), (ids, {1: 0.7})])
    assert len(list(streamed.iter_ids())) == 2
    assert streamed.scores == pytest.approx([0.6, 0, 1.0])


def test_parse_baseline():
    assert parse_baseline("grid") == {"name": "grid"}
    assert parse_baseline("esam:model=vit_b,min_iou=0.4,x=3") == {
        "name": "esam",
        "model": "vit_b",
        "min_iou": 0.4,
        "x": 3,
    }
    with pytest.raises(ConfigError, match="'vit_b' is not key=value"):
        parse_baseline("esam:vit_b")
