"""Long synthetic videos: a function of seed and frame, exact ids, entities that come, go, cross and return."""

import json

import cv2
import numpy as np

from entitysam.data.synthetic.long import NUM_BACKGROUNDS, LongVideo
from entitysam.data.synthetic.writer import write_long

SIZE = (48, 80)


def test_a_frame_is_a_function_of_seed_and_time():
    first, second = LongVideo(3, 300, SIZE, 12), LongVideo(3, 300, SIZE, 12)
    for time in (250, 0, 100):
        for a, b in zip(first.frame(time), second.frame(time)):
            np.testing.assert_array_equal(a, b)
    assert (first.frame(100)[0] != LongVideo(4, 300, SIZE, 12).frame(100)[0]).any()


def test_more_than_200_entities_come_go_cross_and_return():
    video = LongVideo(0, 5000)
    visits = {thing: [visit for visit in video.visits if visit.thing == thing] for thing in range(video.num_things)}
    assert len(visits) == 220
    assert all(visits.values())
    returning = [pair for pair in visits.values() if len(pair) == 2]
    assert 60 < len(returning) < 120
    assert all(second.start - first.end >= 60 for first, second in returning)
    at_once = [sum(visit.start <= time <= visit.end for visit in video.visits) for time in range(0, 5000, 50)]
    assert 4 < np.mean(at_once) < 20  # a network of 50 queries could show each of them
    opposite = [
        (a, b)
        for a in video.visits
        for b in video.visits
        if a.direction > b.direction and a.start <= b.end and b.start <= a.end and abs(a.height - b.height) < 0.1
    ]
    assert len(opposite) > 50


def test_a_thing_is_visible_during_its_visits_only():
    video = LongVideo(1, 400, SIZE, 10)
    visit = video.visits[3]
    number = NUM_BACKGROUNDS + 1 + visit.thing
    seen = [time for time in range(visit.start - 1, visit.end + 2, 1) if (video.frame(time)[1] == number).any()]
    assert visit.start < seen[0]
    assert seen[-1] <= visit.end
    assert seen[-1] - seen[0] > 0.4 * (visit.end - visit.start)
    assert number in video.categories()


def test_the_written_set_has_the_ids_of_the_video(tmp_path):
    done = []
    write_long(tmp_path, 2, 12, SIZE, seed=5, progress=done.append)
    root = tmp_path / "VIPSeg_720P"
    index = json.loads((root / "panoptic_gt_VIPSeg_long.json").read_text())
    assert [len(video["images"]) for video in index["videos"]] == [12, 12]
    _, ids = LongVideo((5, 4, 1), 12, SIZE, 1).frame(7)
    rgb = cv2.imread(str(root / "panomasksRGB/long_00001/00000007.png"))[..., ::-1].astype(int)
    np.testing.assert_array_equal(rgb @ [1, 256, 65536], ids)
    assert done[-1] == 2
