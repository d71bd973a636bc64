"""Masks of single frames linked over a video, and where they come from."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from entitysam.data.images import DataError
from entitysam.engine.methods.context import MethodContext
from entitysam.engine.methods.frame_masks import ESAMMasks, GivenMasks, build_masks, paint
from entitysam.engine.methods.linked import LinkedByAppearance, LinkedByOverlap
from entitysam.engine.methods.masa import tracker_settings
from entitysam.engine.methods.streamed import StreamedVideo
from entitysam.engine.methods.trivial import Grid, WholeFrame
from entitysam.ops import rle_encode
from entitysam.registry import ConfigError
from entitysam.structures import Detections

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


class Swapping:
    def __init__(self, order):
        self.results = moving(order)

    def segment(self, frame):
        return next(self.results)


def linked(masks, method=LinkedByOverlap, **options):
    made = object.__new__(method)
    made.masks = masks
    for key, value in options.items():
        setattr(made, key, value)
    return made


def test_masks_of_frames_are_linked():
    method = linked(ESAMMasks(Swapping([False, True, False])), min_iou=0.5, max_gap=0)
    segmented = method.segment(FRAMES, (6, 8))
    maps = list(segmented.iter_ids())
    for ids in maps[1:]:
        np.testing.assert_array_equal(ids, maps[0])
    assert segmented.scores == pytest.approx([(0.8 + 0.9 + 0.8) / 3, (0.6 + 0.5 + 0.6) / 3])
    wrong = linked(ESAMMasks(Swapping([False])), min_iou=0.5, max_gap=0).segment(FRAMES, (8, 6))
    with pytest.raises(ValueError, match="frame is 8x6, its annotation 6x8"):
        list(wrong.iter_ids())


class Sliding:
    """One entity of three columns that starts where the list says."""

    def __init__(self, *columns):
        self.columns = columns

    def start(self, frames, out_size):
        def entities_of(index, frame):
            ids = np.zeros(out_size, np.int32)
            ids[:, self.columns[index] : self.columns[index] + 3] = 1
            return ids, np.array([0.7])

        return entities_of


def test_entities_keep_their_ids_only_where_masks_overlap():
    def ids_of(min_iou):
        method = linked(Sliding(0, 1, 5), min_iou=min_iou, max_gap=0)
        return [int(map_.max()) for map_ in method.segment(FRAMES, (6, 8)).iter_ids()]

    assert ids_of(0.5) == [1, 1, 2]  # IoU 2 / 4, then 0
    assert ids_of(0.6) == [1, 2, 3]


def test_scores_are_means_over_the_frames_of_an_entity():
    ids = np.zeros((2, 2), np.int32)
    streamed = StreamedVideo([(ids, {1: 0.5, 3: 1.0}), (ids, {1: 0.7})])
    assert len(list(streamed.iter_ids())) == 2
    assert streamed.scores == pytest.approx([0.6, 0, 1.0])


def test_masa_links_boxes_by_appearance_or_overlap(small_video):
    """Two things of different colours; the second frame names them the other way round."""
    size = small_video[0].shape[:2]
    ids = np.zeros((2, *size), np.int32)
    ids[0, 4:20, 10:26], ids[0, 20:36, 70:80] = 1, 2
    ids[1, 7:23, 10:26], ids[1, 20:36, 64:74] = 2, 1

    class Masks:
        def start(self, frames, out_size):
            return lambda index, frame: (ids[index], np.array([0.9, 0.8]))

    for association in ("masa", "iou"):
        method = linked(
            Masks(), LinkedByAppearance, settings=tracker_settings({"association": association}), device="cpu"
        )
        method.model = MethodContext().masa() if association == "masa" else None
        maps = list(method.segment(small_video[:2], size).iter_ids())
        first, second = maps[0][10, 15], maps[0][30, 75]
        assert 0 < first != second > 0
        assert maps[1][10, 15] == first
        assert maps[1][30, 66] == (second if association == "masa" else 3)  # its boxes have IoU 0.25


def write_detections(path, boxes_only=False):
    """Two overlapping masks on the first of two frames; the second, with the better score, is in front."""
    masks = [np.zeros((6, 8), bool), np.zeros((6, 8), bool)]
    masks[0][:, :5], masks[1][:, 3:] = True, True
    entries = []
    for mask, score in zip(masks, (0.4, 0.8)):
        shape = {"bbox": [0, 0, 3, 3]} if boxes_only else {"segmentation": rle_encode(mask)}
        entries.append({"id": len(entries) + 1, "image_id": 1, "category_id": 1, "score": score, **shape})
    images = [{"id": 1, "file_name": "a.png", "frame_id": 0}, {"id": 2, "file_name": "b.png", "frame_id": 1}]
    path.write_text(json.dumps({"images": images, "annotations": entries}))
    return path


def test_given_masks(tmp_path):
    file = write_detections(tmp_path / "found.json")
    entities_of = GivenMasks(MethodContext(), str(file)).start(FRAMES[:2], (6, 8))
    ids, scores = entities_of(0, FRAMES[0])
    assert ids[0].tolist() == [2, 2, 2, 1, 1, 1, 1, 1]
    assert scores.tolist() == [0.8, 0.4]
    assert not entities_of(1, FRAMES[1])[0].any()
    few = GivenMasks(MethodContext(), str(file), min_score=0.5).start(FRAMES[:2], (6, 8))
    assert few(0, FRAMES[0])[0][0].tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    boxes = GivenMasks(MethodContext(), str(write_detections(tmp_path / "boxes.json", boxes_only=True)))
    with pytest.raises(DataError, match=r"boxes\.json: boxes without masks"):
        boxes.start(FRAMES[:2], (6, 8))(0, FRAMES[0])
    with pytest.raises(DataError, match=r"none\.json"):
        GivenMasks(MethodContext(), str(tmp_path / "none.json"))


def test_nothing_found_is_an_empty_map():
    ids, scores = paint(Detections.of(np.zeros((0, 4))), (6, 8))
    assert ids.shape == (6, 8)
    assert not ids.any()
    assert not len(scores)


def test_sources_are_checked():
    with pytest.raises(ConfigError, match="no source of masks called 'mask2former'"):
        build_masks({"name": "mask2former"}, MethodContext())
    with pytest.raises(ConfigError, match="this method has no SAM 2"):
        build_masks({"name": "sam2"}, MethodContext())
    with pytest.raises(ConfigError, match="no weights; give --weights FILE"):
        build_masks(None, MethodContext())
