"""Re-identification: which entities are merged, and the maps and scores of the result."""

import numpy as np
import pytest
import torch

from entitysam.data.synthetic.returning import new_at_return, render_returning
from entitysam.masa.reid import MergedVideo, Reidentifier, TrackSummaries, entity_boxes, find_returned
from entitysam.structures import VideoSegments

EMBEDDINGS = {"red": [8.0, 0, 0], "green": [0, 8.0, 0], "blue": [0, 0, 8.0]}


def summaries_of(*frames):
    """Frames as {id: colour}."""
    summaries = TrackSummaries()
    for frame in frames:
        summaries.add(list(frame), torch.tensor([EMBEDDINGS[colour] for colour in frame.values()]).reshape(-1, 3))
    return summaries


def test_a_returning_entity_gets_its_first_id():
    left, back = {1: "red", 2: "green"}, {1: "red", 3: "green"}
    assert find_returned(summaries_of(left, {1: "red"}, back)) == {3: 2}
    assert find_returned(summaries_of(left, back)) == {3: 2}  # a change of ids from one frame to the next


def test_a_visible_entity_is_not_merged():
    assert find_returned(summaries_of({1: "red"}, {1: "red", 2: "red"})) == {}
    # a different entity is not merged with one that left
    assert find_returned(summaries_of({1: "red", 2: "green"}, {1: "red"}, {1: "red", 3: "blue"})) == {}


def test_an_entity_that_is_visible_later_has_not_left():
    assert find_returned(summaries_of({1: "red"}, {2: "red"}, {1: "red"})) == {}


def test_returning_twice():
    nobody = {}
    assert find_returned(summaries_of({1: "red"}, nobody, {2: "red"}, nobody, {3: "red"})) == {2: 1, 3: 1}


def test_one_entity_returns_once_on_a_frame():
    merged = find_returned(summaries_of({1: "red", 4: "blue"}, {4: "blue"}, {2: "red", 3: "red", 4: "blue"}), beta=0.3)
    assert merged == {2: 1}


def test_nothing_to_merge():
    assert find_returned(TrackSummaries()) == {}
    assert find_returned(summaries_of({}, {1: "red"}, {})) == {}


def test_merged_maps_and_scores():
    maps = [np.array([[1, 2]], np.int32), np.array([[1, 0]], np.int32), np.array([[1, 3]], np.int32)]
    merged = MergedVideo(VideoSegments.of(maps, [0.9, 0.4, 0.7]), {3: 2})
    assert np.stack(list(merged.iter_ids())).tolist() == [[[1, 2]], [[1, 0]], [[1, 2]]]
    assert merged.scores.tolist() == pytest.approx([0.9, 0.7, 0.7])
    assert merged.frame_scores[1].tolist() == pytest.approx([0.7] * 3)
    assert maps[2].tolist() == [[1, 3]]  # the video itself is as it was


class ColourModel:
    def encode(self, image):
        return image

    def embed(self, features, boxes):
        return torch.stack([features[:, y1:y2, x1:x2].mean((1, 2)) / 25 for x1, y1, x2, y2 in boxes.int().tolist()])


def test_a_video_from_its_pixels():
    maps, frames = np.zeros((4, 20, 40), np.int32), np.full((4, 20, 40, 3), 20, np.uint8)
    for frame, number, x, colour in [
        (0, 1, 0, 0),
        (0, 2, 20, 1),
        (1, 1, 0, 0),
        (2, 1, 0, 0),
        (3, 1, 0, 0),
        (3, 3, 10, 1),
    ]:
        maps[frame, :10, x : x + 10] = number
        frames[frame, :10, x : x + 10] = 255 * np.eye(3, dtype=np.uint8)[colour]
    merged = Reidentifier(ColourModel()).merge(frames, VideoSegments.of(maps, [0.9, 0.8, 0.5]))
    result = np.stack(list(merged.iter_ids()))
    assert np.unique(result).tolist() == [0, 1, 2]
    assert ((result > 0) == (maps > 0)).all()
    assert (result[3, :10, 10:20] == 2).all()


def test_boxes_of_a_map():
    ids = np.zeros((6, 8), np.int32)
    ids[1:3, 2:5], ids[5, 7] = 4, 2
    numbers, boxes = entity_boxes(ids)
    assert numbers == [2, 4]
    assert boxes.tolist() == [[7, 5, 8, 6], [2, 1, 5, 3]]
    assert entity_boxes(np.zeros((3, 3), np.int32))[1].shape == (0, 4)


@pytest.mark.parametrize("beta", [0.1, 0.99])
def test_beta_decides(beta):
    nearly = TrackSummaries()
    for ids, look in (([1], [8.0, 0, 0]), ([], []), ([2], [6.0, 5.0, 0])):
        nearly.add(ids, torch.tensor(look).reshape(-1, 3))
    assert bool(find_returned(nearly, beta)) is (beta < 0.5)


def test_objects_of_returning_clips_are_absent_in_the_middle():
    frames, ids, categories = render_returning((0, 9, 1), 12, (96, 160), leaving=1.0)
    assert frames.shape == (12, 96, 160, 3)
    assert ids.min() > 0
    seen = {number: np.flatnonzero((ids == number).any((1, 2))) for number in categories}
    returning = [number for number, times in seen.items() if len(times) and np.diff(times).max(initial=1) > 3]
    assert len(returning) >= 2
    assert all(seen[number][0] < 4 and seen[number][-1] > 8 for number in returning)
    again = render_returning((0, 9, 1), 12, (96, 160), leaving=1.0)
    assert np.array_equal(frames, again[0])


def test_returning_under_a_new_id():
    ids = np.array([[[5, 9]], [[5, 0]], [[0, 9]], [[5, 9]]], np.int32)
    assert new_at_return(ids).tolist() == [[[1, 2]], [[1, 0]], [[0, 3]], [[4, 3]]]
