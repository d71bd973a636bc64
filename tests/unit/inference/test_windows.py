"""Windows: equal to one pass where one window suffices, one id per entity across windows, any number of workers."""

import multiprocessing
import os

import numpy as np
import pytest
import torch
from support.perfect_network import PerfectNetwork, frame_of, moving_strips, pairs

from entitysam.inference.segmenter import VideoSegmenter
from entitysam.inference.windows.merge import WindowMerge, WindowStitcher, tube_iou
from entitysam.inference.windows.video import FrameWindows, WindowedVideo, check_overlap, window_ranges
from entitysam.inference.windows.window import segment_window


def segmenter(appearance=True):
    return VideoSegmenter(PerfectNetwork(8, appearance), hole_area=0)


def test_one_window_is_one_pass(small_model, small_video):
    model = VideoSegmenter(small_model, score_threshold=0.0, overlap_threshold=0.1)
    expected = model.segment(small_video)
    windows = WindowedVideo([model], iter(small_video), len(small_video))
    found = list(windows)
    np.testing.assert_array_equal([frame.ids for frame in found], expected.ids)
    assert len(expected.scores) > 1
    np.testing.assert_allclose(list(windows.scores.values()), expected.scores, rtol=1e-6)
    for index, frame in enumerate(found):
        np.testing.assert_allclose(list(frame.scores.values()), expected.frame_scores[:, index])


@pytest.mark.parametrize("length", [2, 7, 20, 59])
def test_an_entity_has_one_id_in_all_windows(length):
    truth = moving_strips(60)
    found = [frame.ids for frame in WindowedVideo([segmenter()], map(frame_of, truth), length)]
    assert len(found) == 60
    assert len(pairs(truth, found)) == 5  # four entities and the background


def test_without_appearance_an_entity_that_is_away_at_a_cut_gets_a_new_id():
    truth = moving_strips(60)
    truth[18:42][truth[18:42] == 2] = 0
    for appearance, ids in ((True, 1), (False, 2)):
        found = [frame.ids for frame in WindowedVideo([segmenter(appearance)], map(frame_of, truth), 20)]
        assert len({i for t, i in pairs(truth, found) if t == 2}) == ids


def test_a_query_that_takes_another_entity_inside_a_window_starts_another_id():
    truth = np.zeros((40, 32, 48), int)
    for number in range(8):  # one after the other, so that one query follows all of them
        truth[5 * number : 5 * number + 5, 4 * number : 4 * number + 4, 5 * number : 5 * number + 6] = number + 1
    windows = WindowedVideo([segmenter()], map(frame_of, truth), 20)
    found = [frame.ids for frame in windows]
    assert len(pairs(truth, found)) == 9  # and the background
    assert sorted(windows.scores) == list(range(1, 9))
    assert all(score == pytest.approx(0.9) for score in windows.scores.values())
    one = [frame.ids for frame in WindowedVideo([segmenter()], map(frame_of, truth), 40)]
    assert len({i for _, i in pairs(truth, one)}) == 2  # one window: the published protocol, whose ids are queries


@pytest.mark.parametrize("length", [9, 100])
def test_the_result_does_not_depend_on_the_number_of_workers(length):
    truth = moving_strips(30)
    results = []
    for workers in (1, 3):
        windows = WindowedVideo([segmenter() for _ in range(workers)], map(frame_of, truth), length)
        results.append(([(frame.ids.tolist(), frame.scores) for frame in windows], windows.scores))
    assert results[0] == results[1]


def test_a_window_of_tiles():
    truth = np.kron(moving_strips(12, 3), np.ones((2, 2), int))
    segmenters = [VideoSegmenter(PerfectNetwork(8, reuse=False), hole_area=0)]
    found = [frame.ids for frame in WindowedVideo(segmenters, map(frame_of, truth), 8, grid=(2, 2))]
    assert len(pairs(truth, found)) == 4


def test_windows_of_frames():
    windows, taken = FrameWindows(range(1, 11), 5, 2), []
    while windows.has_more:
        taken.append(list(windows.take()))
    assert taken == [[1, 2, 3, 4, 5], [4, 5, 6, 7, 8], [7, 8, 9, 10]]


@pytest.mark.parametrize(
    ("num_frames", "length", "overlap"), [(30, 9, None), (8, 9, None), (31, 7, 2), (9, 5, 4), (1, 2, 1)]
)
def test_the_ranges_of_windows_are_those_of_the_frames(num_frames, length, overlap):
    windows, taken = FrameWindows(range(num_frames), length, check_overlap(length, overlap)), []
    while windows.has_more:
        taken.append(list(windows.take()))
    assert [list(frames) for frames in window_ranges(num_frames, length, overlap)] == taken


def in_a_process(frames):
    return segment_window(segmenter(), map(frame_of, frames))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes are forked")
def test_windows_of_several_processes():
    truth = moving_strips(30)
    expected = WindowedVideo([segmenter()], map(frame_of, truth), 9)
    maps = [(frame.ids.tolist(), frame.scores) for frame in expected]
    ranges = window_ranges(len(truth), 9)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        merge, found = WindowMerge(check_overlap(9)), []
        for index, window in enumerate(pool.imap(in_a_process, [truth[list(frames)] for frames in ranges])):
            found += merge.add(window, is_last=index == len(ranges) - 1)
    assert [(frame.ids.tolist(), frame.scores) for frame in found] == maps
    assert merge.scores == expected.scores


def test_no_frames_and_windows_that_are_too_short():
    with pytest.raises(ValueError, match="no frames"):
        list(WindowedVideo([segmenter()], [], 10))
    with pytest.raises(ValueError, match="windows of 4 frames are not longer than their overlap of 4"):
        WindowedVideo([segmenter()], [], 4, overlap=4)
    with pytest.raises(ValueError, match="windows of 1 frames"):
        WindowedVideo([segmenter()], [], 1)


def test_tube_iou_against_sets_of_pixels():
    rng = np.random.default_rng(0)
    before, after = rng.integers(0, 4, (3, 5, 6)) * 10, rng.integers(0, 3, (3, 5, 6))
    found = tube_iou(before, after, [10, 20, 30, 99], 2)
    for n in (1, 2):
        for column, number in enumerate([10, 20, 30, 99]):
            a, b = after == n, before == number
            assert found[n - 1, column] == pytest.approx((a & b).sum() / (a | b).sum())


def test_stitching_by_overlap_precedes_appearance():
    looks = torch.eye(3)
    stitcher = WindowStitcher()
    assert stitcher.stitch([], [], looks[:2], 2).tolist() == [0, 1, 2]
    shared = [np.array([[1, 1, 0, 2]])]
    swapped = [np.array([[2, 2, 0, 0]])]  # entity 2 is where 1 was and looks like 2; entity 1 looks like 1
    assert stitcher.stitch(shared, swapped, looks[:2], 2).tolist() == [0, 3, 1]
