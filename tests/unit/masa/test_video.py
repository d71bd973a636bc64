"""MASA over videos: detections in, tracks and files out; embeddings are mean colours instead of a network."""

import json

import numpy as np
import pytest
import torch

from entitysam.io.id_maps import read_ids
from entitysam.io.writers.tracks import TrackWriter
from entitysam.masa.tracker import SETTINGS, Tracker, read_setting
from entitysam.masa.video import VideoTracker
from entitysam.ops import rle_encode
from entitysam.structures import Detections
from entitysam.visualization.tracks import draw_boxes, masks_to_ids

COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
NOTHING = Detections.of([])


class ColourModel:
    """A network whose embeddings are mean colours and whose proposals are two fixed boxes."""

    calls = 0

    def encode(self, image):
        self.calls += 1
        return image

    def embed(self, features, boxes):
        assert (boxes >= 0).all()  # never asked about what is not on the frame
        boxes = boxes.int().tolist()
        return torch.stack([features[:, y1:y2, x1:x2].mean((1, 2)) / 25 for x1, y1, x2, y2 in boxes])

    def propose(self, features, limit=300):
        boxes = torch.tensor([[0.0, 0, 16, 16], [40, 0, 56, 16]])[:limit]
        return boxes, torch.tensor([0.9, 0.8])[:limit]


def clip():
    """Three squares of 16 pixels; red and green swap places on frame 1, green is away on frames 2 to 5."""
    places = [{0: 0, 1: 40, 2: 80}, {0: 40, 1: 0, 2: 80}, *[{0: 40, 2: 80}] * 4, {0: 40, 1: 0, 2: 80}]
    frames, seen = [], []
    for place in places:
        frame = np.full((48, 120, 3), 30, np.uint8)
        for colour, x in place.items():
            frame[:16, x : x + 16] = COLOURS[colour]
        frames.append(frame)
        seen.append(Detections.of([[x, 0, x + 16, 16] for x in place.values()], categories=list(place)))
    return frames, seen


def run(tracker, frames, seen):
    return list(tracker.stream(frames, lambda index, frame: seen[index]))


def test_embeddings_follow_what_changes_places_and_iou_does_not():
    frames, seen = clip()
    by_look = run(VideoTracker(Tracker(SETTINGS["tao"]), ColourModel()), frames, seen)
    by_place = run(VideoTracker(Tracker(read_setting("tao", "iou"))), frames, seen)
    assert [result.ids.tolist() for result in by_look[:2]] == [[1, 2, 3], [1, 2, 3]]
    assert [result.ids.tolist() for result in by_place[:2]] == [[1, 2, 3], [2, 1, 3]]
    assert by_look[6].ids.tolist() == [1, 2, 3]  # back after four frames
    events = [(result.index, event.kind, event.id) for result in by_look for event in result.events]
    assert events == [(0, "born", 1), (0, "born", 2), (0, "born", 3), (4, "lost", 2), (6, "back", 2)]


def test_own_proposals_alone_and_beside_given_detections():
    frames, _ = clip()
    model = ColourModel()
    alone = list(VideoTracker(Tracker(SETTINGS["tao"]), model, proposals=300).stream(frames[:2]))
    assert [result.ids.tolist() for result in alone] == [[1, 2], [2, 1]]
    assert model.calls == 2  # features are computed once per frame
    extra = [Detections.of([[80, 0, 96, 16]])] * 2
    both = run(VideoTracker(Tracker(SETTINGS["tao"]), ColourModel(), proposals=300), frames[:2], extra)
    assert [result.ids.tolist() for result in both] == [[1, 2, 3], [1, 3, 2]]


def test_detections_that_mean_nothing_are_counted_and_left_out():
    frames, _ = clip()
    boxes = [
        [0, 0, 16, 16],
        [200, 0, 210, 9],
        [-9, -9, -1, -1],
        [5, 5, 5, 9],
        [np.nan, 0, 9, 9],
        [40, 0, 56, 16],
        [110, 0, 140, 9],
    ]
    scores = [1, 1, 1, 1, 1, np.nan, 1]
    tracker = VideoTracker(Tracker(SETTINGS["tao"]), ColourModel())
    (result,) = run(tracker, frames[:1], [Detections.of(boxes, scores)])
    assert result.ids.tolist() == [1, 2]
    assert result.objects.boxes.tolist() == [boxes[0], boxes[6]]  # as they were given, also beyond the border
    assert +tracker.warnings == {
        "detections whose box is empty or not on the frame, left out": 4,
        "detections whose score is no number, left out": 1,
    }


def test_no_detections_at_all():
    frames, _ = clip()
    model = ColourModel()
    results = run(VideoTracker(Tracker(SETTINGS["video"]), model), frames, [NOTHING] * len(frames))
    assert [len(result.ids) for result in results] == [0] * len(frames)
    assert model.calls == 0  # nothing to look at


def test_a_tracker_that_needs_a_network_says_so():
    with pytest.raises(ValueError, match="need a network"):
        VideoTracker(Tracker(SETTINGS["tao"]))
    with pytest.raises(ValueError, match="need a network"):
        VideoTracker(Tracker(read_setting("tao", "iou")), proposals=5)


def whole_and_part():
    whole, part = np.zeros((2, 48, 120), bool)
    whole[4:40, 10:60], part[10:20, 20:30] = True, True
    return Detections.of([[10, 4, 60, 40], [20, 10, 30, 20]], [0.9, 0.8], [0, 0], [rle_encode(whole), rle_encode(part)])


def test_overlapping_masks_of_several_sizes():
    objects = whole_and_part()
    painted = masks_to_ids((48, 120), np.array([1, 2]), objects)
    assert (painted == 2).sum() == 100  # the part is in front of the whole
    assert (painted == 1).sum() == 36 * 50 - 100
    tracker = VideoTracker(Tracker(read_setting("tao", "iou")))
    results = run(tracker, [np.zeros((48, 120, 3), np.uint8)] * 2, [objects] * 2)
    assert [result.ids.tolist() for result in results] == [[1, 2], [1, 2]]


def test_boxes_are_framed_in_their_colours():
    blank = np.zeros((48, 120, 3), np.uint8)
    drawn = draw_boxes(blank, np.array([1]), np.array([[10.0, 10.0, 60.0, 40.0]]))
    assert drawn[40, 40].any()
    assert not drawn[30, 40].any()
    assert not blank.any()


def test_the_result_folder(tmp_path):
    frames, seen = clip()
    tracker = VideoTracker(Tracker(SETTINGS["tao"]), ColourModel())
    with TrackWriter(tmp_path, "clip", 120, 48, 10) as writer:
        for result in tracker.stream(frames, lambda index, frame: seen[index]):
            writer.add(f"{result.index:05d}", result.frame, result.ids, result.objects, result.events)
        written = writer.finish()
    assert (written.num_frames, written.num_entities) == (7, 3)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"overlay.mp4", "tracks.json", "tracks.txt", "events.json", "contact_sheet.png"}
    tracks = json.loads((tmp_path / "tracks.json").read_text())["tracks"]
    green = tracks[1]
    assert (green["id"], green["first_frame"], green["last_frame"], green["score"]) == (2, 0, 6, 1.0)
    assert green["frames"][0] == {"frame": 0, "score": 1.0, "category_id": 1, "bbox": [40.0, 0.0, 16.0, 16.0]}
    lines = (tmp_path / "tracks.txt").read_text().splitlines()
    assert lines[:2] == ["1,1,0,0,16,16,1,-1,-1,-1", "1,2,40,0,16,16,1,-1,-1,-1"]
    assert len(lines) == 3 + 3 + 4 * 2 + 3


def test_masks_are_written_with_their_area(tmp_path):
    with TrackWriter(tmp_path, "clip", 120, 48, None) as writer:
        writer.add("00000", np.zeros((48, 120, 3), np.uint8), np.array([7, 4]), whole_and_part(), [])
        writer.finish()
    tracks = json.loads((tmp_path / "tracks.json").read_text())["tracks"]
    assert [(track["id"], track["frames"][0]["area"]) for track in tracks] == [(4, 100), (7, 1800)]
    assert tracks[0]["frames"][0]["segmentation"]["size"] == [48, 120]


def test_results_are_there_until_the_next_ones_are_whole(tmp_path):
    def track(name, finish):
        with TrackWriter(tmp_path, "clip", 120, 48, None) as writer:
            writer.add(name, np.zeros((48, 120, 3), np.uint8), np.array([7, 4]), whole_and_part(), [])
            if finish:
                writer.finish()
        return {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    first = track("first", finish=True)
    assert {"overlay.mp4", "segments.json"} < {path.name for path in first}
    assert track("second", finish=False) == first
    assert [path.name for path in first if path.parent.name == "masks"] == ["first.png"]
    assert [path.name for path in track("second", finish=True) if path.parent.name == "masks"] == ["second.png"]


def test_masks_are_written_as_maps(tmp_path):
    """Also for the frames before the first mask; an earlier run's maps go."""
    blank, nothing = np.zeros((48, 120, 3), np.uint8), Detections.of(np.zeros((0, 4)))
    for names in (["before", "old"], ["before", "masks", "boxes"]):
        with TrackWriter(tmp_path, "clip", 120, 48, None) as writer:
            writer.add(names[0], blank, np.zeros(0, int), nothing, [])
            writer.add(names[1], blank, np.array([7, 4]), whole_and_part(), [])
            for name in names[2:]:
                writer.add(name, blank, np.array([7]), Detections.of(np.array([[0.0, 0.0, 9.0, 9.0]])), [])
            writer.finish()
    assert sorted(path.stem for path in (tmp_path / "masks").iterdir()) == ["before", "boxes", "masks"]
    maps = {name: read_ids(tmp_path / "masks" / f"{name}.png") for name in names}
    assert not maps["before"].any()
    assert not maps["boxes"].any()
    assert np.array_equal(maps["masks"], masks_to_ids((48, 120), np.array([7, 4]), whole_and_part()))
    (video,) = json.loads((tmp_path / "segments.json").read_text())["annotations"]
    assert [frame["file_name"] for frame in video["annotations"]] == ["before.png", "masks.png", "boxes.png"]
    infos = video["annotations"][1]["segments_info"]
    assert [(info["id"], info["area"]) for info in infos] == [(4, 100), (7, 1700)]


def test_an_error_leaves_no_half_written_file(tmp_path):
    writer = TrackWriter(tmp_path, "clip", 120, 48, None)
    with writer:
        writer.add("00000", np.zeros((48, 120, 3), np.uint8), np.array([1, 2]), whole_and_part(), [])
    assert list(tmp_path.iterdir()) == []  # left without `finish`
