"""Tracking in evaluation: data sets with tracks, the prediction format of tracked boxes, given detections, whole runs."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from support.video_layouts import write_ytvis

from entitysam.config import load_config, to_dict
from entitysam.data.evaluation.mot import AnnotatedTracks, PanopticTracks
from entitysam.data.evaluation.vipseg import VIPSegVideos
from entitysam.data.evaluation.ytvis import YouTubeVIS
from entitysam.data.images import DataError
from entitysam.data.synthetic.writer import SyntheticSet, write_synthetic
from entitysam.engine.evaluate.run import RunOptions, build_dataset, build_prediction_format, run
from entitysam.engine.formats.base import PredictionError
from entitysam.engine.formats.tracks import TracksFormat, annotated_tracks, paint_boxes
from entitysam.engine.methods.masa_tracking import VideoTracking, same_names
from entitysam.evaluation import EvaluationError, TrackedVideo, Tracks
from entitysam.ops import rle_decode
from entitysam.registry import ConfigError


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Two synthetic videos of 7 frames in VIPSeg's layout."""
    folder = tmp_path_factory.mktemp("videos")
    nothing = {"train_images": 0, "val_images": 0, "train_videos": 0}
    write_synthetic(folder, SyntheticSet(**nothing, val_videos=2, val_frames=7, video_size=(48, 80)))
    return folder / "VIPSeg_720P"


def go(videos, out, *words, **options):
    """Runs in this process: the contents of result.json, and whether it was complete."""
    words = [f"evaluation.dataset.root={videos}", f"output_dir={out}", *words]
    complete = run(
        to_dict(load_config("eval/synthetic_tracking", words)), RunOptions(device="cpu", quiet=True, worst=1, **options)
    )
    return json.loads((out / "result.json").read_text()), complete


def mot(folder, lines, frames=3, size=(40, 60)):
    """A MOT file and its images."""
    images = folder / "img"
    images.mkdir(parents=True)
    for index in range(frames):
        Image.new("RGB", (size[1], size[0])).save(images / f"{index + 1:06d}.png")
    (folder / "gt.txt").write_text("\n".join(lines))
    return folder / "gt.txt", images


GT = ["1,7,0,0,10,10,1", "2,7,2,0,10,10,1", "3,7,4,0,10,10,1", "1,9,30,5,8,8,1", "3,9,30,5,8,8,1"]


def test_a_mot_file_as_a_data_set(tmp_path):
    dataset = AnnotatedTracks(*mot(tmp_path, GT))
    (video,) = dataset.videos
    assert (video.video_id, len(video), video.height, video.width) == ("gt", 3, 40, 60)
    tracks = annotated_tracks("gt", video.annotation["frames"])
    assert tracks.frame.tolist() == [0, 0, 1, 2, 2]
    assert tracks.track_id.tolist() == [1, 2, 1, 1, 2]
    assert tracks.box[0].tolist() == [0, 0, 10, 10]
    every_other = AnnotatedTracks(*mot(tmp_path / "again", GT), step=2)
    assert [file.name for file in every_other.videos[0].frame_files] == ["000001.png", "000003.png"]
    assert [len(frame.objects) for frame in every_other.videos[0].annotation["frames"]] == [2, 2]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([*GT, "1,-1,0,0,5,5,1"], "object 3 has no track id: these are detections"),
        ([*GT, "4,7,0,0,5,5,1"], "frame 4 has no image in .*, which has 3"),
    ],
)
def test_bad_track_files(tmp_path, lines, message):
    with pytest.raises(DataError, match=message):
        AnnotatedTracks(*mot(tmp_path, lines))


def test_steps_below_one_are_refused(tmp_path, videos):
    with pytest.raises(ConfigError, match="step: must be at least 1, not 0"):
        PanopticTracks(videos, step=0)
    with pytest.raises(ConfigError, match="step: must be at least 1, not -1"):
        AnnotatedTracks(*mot(tmp_path, GT), step=-1)


def test_the_boxes_of_a_panoptic_set(videos):
    source = VIPSegVideos(videos)
    things = {category["id"] for category in source.categories if category["isthing"]}
    dataset = PanopticTracks(videos, step=3)
    for video, original in zip(dataset.videos, source.videos):
        assert len(video) == 3
        assert video.frame_files == original.frame_files[::3]
        for frame, segments in zip(video.annotation["frames"], original.annotation["segments"][::3]):
            listed = [segment for segment in segments if segment["category_id"] in things]
            assert frame.track_ids == [segment["id"] for segment in listed]
            x1, y1, x2, y2 = frame.objects.boxes.T
            assert np.stack([x1, y1, x2 - x1, y2 - y1], 1).tolist() == [segment["bbox"] for segment in listed]
    everything = PanopticTracks(videos, things_only=False)
    assert len(everything.categories) == len(source.categories)


def test_a_run_with_annotated_boxes_and_iou(videos, tmp_path):
    result, complete = go(videos, tmp_path / "a", "evaluation.tracker.association=iou")
    assert complete
    metrics = result["metrics"]
    assert metrics["DetA"] == pytest.approx(100)  # the boxes are given
    assert 50 < metrics["AssA"] <= 100
    assert (tmp_path / "a" / "plots" / "worst_videos.png").is_file()
    # The saved predictions give the same scores, to all digits.
    again, _ = go(videos, tmp_path / "b", predictions=str(tmp_path / "a"))
    assert again["metrics"] == metrics
    assert 0 <= metrics["IDSW"] == int(metrics["IDSW"]) < 40  # a count, no percentage
    # No IoU reaches 0.99: every box is its own track.
    strict, _ = go(videos, tmp_path / "c", "evaluation.tracker.association=iou", "evaluation.tracker.beta=0.99")
    assert strict["metrics"]["DetA"] == pytest.approx(100)
    assert strict["metrics"]["AssA"] < metrics["AssA"] - 20


def test_a_run_with_the_network(videos, tmp_path):
    result, complete = go(videos, tmp_path, "evaluation.tracker.proposals=5", weights="random", limit_videos=1)
    assert complete
    assert list(result["videos"]) == ["val_00000"]
    assert result["metrics"]["LocRe"] > 99  # given boxes are there; the proposals besides are false positives


def test_detections_from_a_file_have_categories_by_name(videos, tmp_path):
    dataset = PanopticTracks(videos)
    names = {category["id"]: category["name"] for category in dataset.categories}
    frames = []
    for video in dataset.videos:
        for file, frame in zip(video.frame_files, video.annotation["frames"]):
            labels = [
                {"id": str(i), "category": names[int(c)], "box2d": dict(zip(("x1", "y1", "x2", "y2"), map(float, box)))}
                for i, (c, box) in enumerate(zip(frame.objects.categories, frame.objects.boxes))
            ]
            frames.append({"name": file.name, "videoName": video.video_id, "labels": labels})
    frames[2]["labels"].append({"id": "x", "category": "car", "box2d": {"x1": 500, "y1": 0, "x2": 600, "y2": 9}})
    path = tmp_path / "found.json"
    path.write_text(json.dumps(frames))
    words = ["evaluation.task=mot", "evaluation.tracker.association=iou"]
    truth, _ = go(videos, tmp_path / "truth", *words)
    result, complete = go(videos, tmp_path / "file", *words, f"evaluation.tracker.detections={path}")
    assert complete
    assert result["metrics"] == truth["metrics"]
    assert result["warnings"] == {"detections whose box is empty or not on the frame, left out": 1}


def test_names_are_matched_where_both_sides_have_them():
    given, wanted = [{"id": 1, "name": "car"}, {"id": 2, "name": "dog"}], [{"id": 9, "name": "car"}]
    assert same_names(given, wanted) == {1: 9, 2: -1}
    assert same_names([{"id": 1}], wanted) == {}


def test_masks_of_youtube_vis_with_given_detections(tmp_path):
    root = write_ytvis(tmp_path)
    words = ["evaluation.tracker={setting: tao, association: iou, detections: truth}",
             f"evaluation.dataset.root={root}", f"output_dir={tmp_path / 'out'}"]  # fmt: skip
    config = load_config("eval/ytvis_2019", words)
    dataset = build_dataset(config)
    assert isinstance(dataset, YouTubeVIS)
    prediction_format = build_prediction_format(config, dataset, tmp_path)
    method = VideoTracking(config, "", dataset, torch.device("cpu"))
    for video in dataset.videos:
        results = prediction_format.write(video, prediction_format.predict(method, video))
        annotated = [i for i in video.annotation["instances"] if not i.get("iscrowd")]
        seen = sum(shape is not None for instance in annotated for shape in instance["segmentations"])
        assert sum(code is not None for result in results for code in result["segmentations"]) == seen > 0
        assert {result["category_id"] for result in results} == {i["category_id"] for i in annotated}
        codes = [code for result in results for code in result["segmentations"] if code is not None]
        assert rle_decode(codes[0]).shape == (video.height, video.width)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("evaluation.tracker.detections=null", "evaluation.tracker.detections: missing"),
        ("evaluation.tracker.setting=fast", "setting: one of"),
        ("evaluation.tracker.betta=1", "tracker.betta: unknown key"),
        ("evaluation.tracker.detections=nowhere.json", "nowhere.json: no such file"),
        ("evaluation.tracker.observations=nowhere.json", "nowhere.json: no such file"),  # the key's earlier name
        ("evaluation.evaluators=[{name: tracking, metrics: [HOTTA]}]", "no metric 'HOTTA'"),
        ("evaluation.evaluators=[{name: veq}]", "'veq' cannot be computed on"),
        ("evaluation.dataset.step=0", "step: must be at least 1"),
    ],
)
def test_bad_configs(videos, tmp_path, word, message):
    with pytest.raises(ValueError, match=message):
        go(videos, tmp_path, "evaluation.tracker.association=iou", word)


def test_bad_saved_tracks(videos, tmp_path):
    prediction_format = TracksFormat(tmp_path, PanopticTracks(videos), class_agnostic=True)
    with pytest.raises(PredictionError, match="no such file"):
        prediction_format.read_index()
    (tmp_path / "tracks.json").write_text('[{"frame": 0, "bbox": [0, 0, 1, 1]}]')
    with pytest.raises(PredictionError, match=r"not a file of tracks: \[0\]: no 'video_id'"):
        prediction_format.read_index()
    short = {"video_id": "val_00000", "frame": 0, "bbox": [0, 0, 1, 1]}
    with pytest.raises(PredictionError, match=r"video val_00000, boxes: \[0\]: no 'track_id'"):
        prediction_format.pair(prediction_format.dataset.videos[0], [short], TrackedVideo)
    late = {"video_id": "val_00000", "frame": 7, "track_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1]}
    with pytest.raises(PredictionError, match="video val_00000: a box on frame 7, but it has 7 frames"):
        prediction_format.pair(prediction_format.dataset.videos[0], [late], TrackedVideo)


def test_ids_used_twice_are_named(videos, tmp_path):
    tracks = [{"video_id": v, "frame": 0, "track_id": 3, "category_id": 1, "bbox": [0, 0, 1, 1]} for v in
              ("val_00000", "val_00000", "val_00001")]  # fmt: skip
    (tmp_path / "tracks.json").write_text(json.dumps(tracks))
    result, complete = go(videos, tmp_path / "out", predictions=str(tmp_path))
    assert not complete
    errors = {(failure["during"], failure["error"]) for failure in result["failures"]}
    assert errors == {
        (name, "video val_00000, prediction, frame 0: id 3 has two boxes") for name in ("teta", "tracking")
    }


def test_annotations_that_are_not_finite_are_named(tmp_path):
    dataset = AnnotatedTracks(*mot(tmp_path, ["1,7,nan,0,10,10,1"]))
    with pytest.raises(EvaluationError, match="video gt, frame 0: an annotated box is not finite"):
        annotated_tracks("gt", dataset.videos[0].annotation["frames"])


def test_smaller_boxes_are_drawn_above_larger_ones():
    tracks = Tracks.from_rows([[0, 4, 1, 2, 2, 3, 3], [0, 5, 1, -5, -5, 15, 15], [1, 6, 1, 0, 0, 20, 20]])
    painted = paint_boxes(tracks, 0, (12, 20))
    assert (painted == 4).sum() == 9
    assert (painted == 5).sum() == 100 - 9
    assert painted.max() == 5


def test_reid_in_an_evaluation(videos, tmp_path):
    nodes = "evaluation.evaluators=[{name: veq, windows: [1]}, {name: tracking, metrics: [IDF1, CLR_TP]}]"
    words = ["model=tiny_scratch", "model.image_size=64", "model.num_entities=6", "inference.score_threshold=0", nodes,
             f"evaluation.dataset.root={videos}"]  # fmt: skip

    def metrics(name, *more):
        config = to_dict(load_config("eval/synthetic", [*words, *more, f"output_dir={tmp_path / name}"]))
        assert run(config, RunOptions(weights="random", device="cpu", quiet=True, worst=0, limit_videos=1))
        return json.loads((tmp_path / name / "result.json").read_text())["metrics"]

    plain, merged = metrics("plain"), metrics("merged", "evaluation.reid=random")
    assert merged["VEQ"] == plain["VEQ"]  # frame by frame nothing changes
    assert merged["CLR_TP"] == plain["CLR_TP"]
    assert merged["IDF1"] >= 0


def test_boxes_of_a_panoptic_prediction(videos, tmp_path):
    config = load_config("eval/synthetic", [f"evaluation.dataset.root={videos}"])
    dataset = build_dataset(config)
    prediction_format = build_prediction_format(config, dataset, tmp_path)
    video = dataset.videos[0]
    frames = [
        {"file_name": name, "segments_info": s}
        for name, s in zip(video.annotation["names"], video.annotation["segments"])
    ]
    pair = prediction_format.pair(video, {"annotations": frames}, TrackedVideo)
    assert pair.truth.box.tolist() == pair.prediction.box.tolist()
    assert len(pair.truth) == sum(len(segments) for segments in video.annotation["segments"])
    assert set(pair.truth.category.tolist()) == {1}
