"""Files of detections: the same boxes from every format, real samples, files that are wrong, frames of a clip."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from entitysam.data.detections.matching import ClipDetections
from entitysam.data.detections.readers import read_detections
from entitysam.data.images import DataError
from entitysam.ops import rle_encode

SHARED = Path(__file__).parents[4] / ".." / "shared" / "data"
BOXES = {0: [[10, 20, 30, 60], [50, 20, 70, 40]], 1: [[12, 20, 32, 60]], 2: []}  # frame -> x1, y1, x2, y2
SIZE = (80, 100)


def needs(*parts):
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"real sample not here: {path}")
    return path


def xywh(box):
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def square(box):
    mask = np.zeros(SIZE, bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


def flat(kind):
    """(frame, box, score) of every box as a COCO annotation of the wanted kind."""
    for frame, boxes in BOXES.items():
        for number, box in enumerate(boxes):
            shape = {"bbox": xywh(box)} if kind == "box" else {"segmentation": rle_encode(square(box))}
            yield frame, {"score": 0.5 + 0.1 * number, "category_id": 4, **shape}


def images():
    return [{"id": 100 + f, "file_name": f"clip/f{f}.jpg", "height": SIZE[0], "width": SIZE[1]} for f in BOXES]


def write(folder, kind):
    """The boxes in one of the formats."""
    path = folder / "found.json"
    if kind in ("box", "mask"):
        annotations = [{"image_id": 100 + frame, **entry} for frame, entry in flat(kind)]
        contents = {"images": images(), "annotations": annotations, "categories": [{"id": 4, "name": "cat"}]}
    elif kind == "tao":
        listed = [{**image, "video_id": 7, "frame_index": index} for index, image in enumerate(images())]
        annotations = [{"image_id": 100 + frame, "track_id": 1, **entry} for frame, entry in flat("box")]
        contents = {"videos": [{"id": 7, "name": "set/clip"}], "images": listed, "annotations": annotations}
    elif kind == "results":
        contents = [{"image_id": frame, **entry} for frame, entry in flat("mask")]
    elif kind == "scalabel":
        contents = [
            {"name": f"f{f}.jpg", "videoName": "clip", "frameIndex": f, "labels": [scalabel(b, n) for n, b in enumerate(boxes)]}
            for f, boxes in BOXES.items()
        ]  # fmt: skip
    else:
        path = folder / "found.txt"
        lines = (
            f"{frame + 1},-1,{','.join(map(str, entry['bbox']))},{entry['score']},-1,-1,-1"
            for frame, entry in flat("box")
        )
        path.write_text("\n".join(lines) + "\n\n")
        return path
    path.write_text(json.dumps(contents))
    return path


def scalabel(box, number):
    corners = dict(zip(("x1", "y1", "x2", "y2"), box))
    return {"id": str(number), "category": "car", "score": 0.5 + 0.1 * number, "box2d": corners}


@pytest.mark.parametrize("kind", ["box", "mask", "tao", "results", "scalabel", "mot"])
def test_every_format_says_the_same(tmp_path, kind):
    found = ClipDetections(write(tmp_path, kind), "clip", ["f0", "f1", "f2"], [0, 1, 2])
    for frame, boxes in BOXES.items():
        seen = found.at(frame, SIZE)
        assert seen.boxes.tolist() == boxes
        assert seen.scores.tolist() == pytest.approx([0.5, 0.6][: len(boxes)])
        assert all((mask is not None) == (kind in ("mask", "results")) for mask in seen.masks)
    assert found.missing == 0


def test_frames_of_another_clip_and_frames_that_are_not_there(tmp_path):
    path = write(tmp_path, "box")
    found = ClipDetections(path, "clip", ["f2", "f9", "f0"], [0, 1, 2])
    assert [len(found.at(index, SIZE)) for index in (0, 1, 2, 3)] == [0, 0, 2, 0]
    assert found.missing == 1
    with pytest.raises(DataError, match=r"none of its frames \(f0, ...\) is a frame of clip \(g0, ...\)"):
        ClipDetections(path, "clip", ["g0"], [0])


def test_the_video_is_chosen_by_name_then_by_its_frames(tmp_path):
    path = tmp_path / "two.json"
    frames = [
        {"name": f"{video}{f}.jpg", "videoName": video, "frameIndex": f, "labels": [scalabel([0, 0, f + 5, 9], 0)]}
        for video in "ab"
        for f in range(2)
    ]
    path.write_text(json.dumps({"frames": frames}))
    assert ClipDetections(path, "b", ["0", "1"], [0, 1]).at(1, SIZE).boxes.tolist() == [[0, 0, 6, 9]]
    assert len(ClipDetections(path, "other", ["a1"], [0]).at(0, SIZE)) == 1
    with pytest.raises(DataError, match=r"2 videos \(a, b, ...\), none of which is surely other"):
        ClipDetections(path, "other", ["0"], [0])


def test_crowds_are_no_detections_but_stay_in_the_file(tmp_path):
    label = {**scalabel([0, 0, 5, 5], 0), "attributes": {"crowd": True}}
    path = tmp_path / "crowd.json"
    path.write_text(json.dumps([{"name": "f0.jpg", "videoName": "clip", "labels": [label]}]))
    assert read_detections(path).videos["clip"][0].ignore.tolist() == [True]
    assert len(ClipDetections(path, "clip", ["f0"], [0]).at(0, SIZE)) == 0


def test_numbers_that_mean_nothing_are_passed_on(tmp_path):
    path = tmp_path / "nan.json"
    path.write_text(
        '[{"image_id": 0, "bbox": [0, 0, NaN, 5], "score": NaN}, {"image_id": 0, "bbox": [0, 0, 0, 5], "score": null}]'
    )
    seen = ClipDetections(path, "clip", ["x"], [0]).at(0, SIZE)
    assert [math.isnan(score) for score in seen.scores] == [True, True]
    assert len(seen) == 2


def test_a_mask_of_another_size_is_named(tmp_path):
    found = ClipDetections(write(tmp_path, "mask"), "clip", ["f0"], [0])
    with pytest.raises(DataError, match="frame f0: a mask is 100x80, the frame 64x48"):
        found.at(0, (48, 64))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{", "broken JSON"),
        ("a.json", '{"boxes": []}', "not a file of detections"),
        ("a.json", '[{"image_id": 0}]', "frame 0, object 1: lacks 'bbox'"),
        ("a.json", '[{"image_id": 0, "bbox": [1, 2, 3]}]', r"\[0\].bbox: List should have at least 4 items"),
        ("a.json", '{"images": [{"id": 1}], "annotations": []}', r"images\[0\]: no 'file_name'"),
        ("a.json", '{"images": [], "annotations": [{"image_id": 3, "bbox": [0, 0, 1, 1]}]}', "image_id 3 .* not in"),
        ("a.json", '{"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}], "annotations": []}',
         "image id 1 is there twice"),
        ("a.json", '{"images": [{"id": 1, "file_name": "a"}, {"id": 2, "file_name": "a"}], "annotations": []}',
         "frame a is there twice"),
        ("a.json", '[{"name": "a.jpg", "labels": [{"box2d": {}}]}]', r"\[0\].labels\[0\]: no 'category'"),
        ("a.json", '[{"image_id": 0, "segmentation": {"size": [4, 4]}}]', "frame 0, object 1: unusable segmentation"),
        ("a.txt", "1,-1,0,0,5,5,0.5\n1,-1,0,zero,5,5", "line 2: 'zero' is not a number; a line is frame, id"),
        ("a.txt", "1,2,3", "line 1: 3 columns; a line is frame, id"),
    ],
)  # fmt: skip
def test_files_that_are_wrong_are_named(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_detections(path)
    assert str(caught.value).startswith(str(path))


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_detections(tmp_path / "none.json")
    with pytest.raises(DataError, match="no json files in this folder"):
        read_detections(tmp_path)


def test_real_bdd100k_labels():
    labels = needs("bdd100k_mots", "labels")
    found = read_detections(labels)
    frames = found.videos["00091078-875c1f73"]
    assert [len(frame.objects) for frame in frames] == [13, 13, 13, 12, 15, 21]
    assert [category["name"] for category in found.categories] == ["car", "pedestrian", "truck"]
    assert all(mask["size"] == [720, 1280] for frame in frames for mask in frame.objects.masks)
    assert len({track for frame in frames for track in frame.track_ids}) == 24


def test_real_tao_and_cocovid_files():
    for name in ("demo_tao_data", "demo_cocovid_data"):
        found = read_detections(needs("mmtracking_samples", "tests", "data", name, "ann.json"))
        assert sum(len(frame.objects) for frames in found.videos.values() for frame in frames) > 0


def coco_with(shape, **entry):
    image = {"id": 1, "file_name": "f0.jpg", "height": SIZE[0], "width": SIZE[1]}
    annotation = {"id": 7, "image_id": 1, "segmentation": shape, **entry}
    return json.dumps({"images": [image], "annotations": [annotation]})


@pytest.mark.parametrize(
    "shape", [[[0, 0, 1e9, 0, 9, 9]], [[0, 0, math.nan, 0, 9, 9]], {"size": [80, 100], "counts": "zzz"}, [[1, 2]]]
)
def test_a_bad_mask_costs_a_warning_where_there_is_a_box(tmp_path, shape):
    path = tmp_path / "a.json"
    path.write_text(coco_with(shape, bbox=[1, 2, 3, 4]))
    found = ClipDetections(path, "clip", ["f0"], [0])
    seen = found.at(0, SIZE)
    assert (seen.boxes.tolist(), seen.masks) == ([[1, 2, 4, 6]], [None])
    assert len(found.warnings) == 1
    assert found.warnings[0].startswith(f"{path}: frame f0.jpg, object 7: unusable segmentation, only its box is used")
    path.write_text(coco_with(shape))
    with pytest.raises(DataError, match=r"frame f0\.jpg, object 7: unusable segmentation"):
        read_detections(path)


@pytest.mark.parametrize(
    "text",
    [
        "1 -1 1 2 3 4 0.5\n2 -1 1 2 3 4 0.5\n",
        "1\t-1\t1\t2\t3\t4\t0.5\r\n2\t-1\t1\t2\t3\t4\t0.5\r\n",
        "\ufeff1, -1, 1, 2, 3, 4, 0.5\n\n2, -1, 1, 2, 3, 4, 0.5,\n",
        "frame,id,x,y,w,h,conf\n1,-1,1,2,3,4,0.5\n2;-1;1;2;3;4;0.5\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_spellings_of_mot_text(tmp_path, text, encoding):
    path = tmp_path / "a.txt"
    path.write_text(text, encoding=encoding)
    (frames,) = read_detections(path).videos.values()
    assert [frame.number for frame in frames] == [1, 2]
    assert all(frame.objects.boxes.tolist() == [[1, 2, 4, 6]] for frame in frames)
    assert all(frame.objects.scores.tolist() == [0.5] for frame in frames)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,-1,1,2,3,4\nframe,id,x,y,w,h\n", "line 2: 'frame' is not a number"),
        ("1.5,-1,1,2,3,4\n", "line 1: frame 1.5 is not a whole number"),
        ("-2,-1,1,2,3,4\n", "line 1: frame -2 is not a whole number"),
        ("1e300,-1,1,2,3,4\n", "line 1: frame 1e300 is not"),
        ("inf,-1,1,2,3,4\n", "line 1: frame inf is not"),
        ("1,nan,1,2,3,4\n", "line 1: id nan is not a whole number"),
    ],
)
def test_lines_of_mot_text_that_are_wrong(tmp_path, text, message):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read_detections(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("name", "text"), [("a.txt", ""), ("a.json", "[]"), ("a.json", '{"images": [], "annotations": []}')]
)
def test_an_empty_file_warns(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    found = ClipDetections(tmp_path / name, "clip", ["f0"], [0])
    assert found.warnings == [f"{tmp_path / name}: no detections in it"]
    assert len(found.at(0, SIZE)) == 0


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '[{"image_id": 0, "bbox": 5}]',
        '[{"image_id": [0], "bbox": [0, 0, 1, 1]}]',
        '[{"image_id": 1e400, "bbox": [0, 0, 1, 1]}]',
        '[{"image_id": 0, "bbox": [0, 0, 1, 1], "category_id": 99999999999999999999}]',
        '[{"image_id": 0, "bbox": [0, 0, 1, "x"]}]',
        '{"images": 5, "annotations": 5}',
        '{"images": [{"id": 1, "file_name": 5}], "annotations": []}',
        '{"images": [{"id": {}, "file_name": "a"}], "annotations": []}',
        '{"frames": 5}',
        '[{"name": "a", "labels": 5}]',
        '[{"name": "a", "labels": [{"category": [], "box2d": {}}]}]',
        "5",
        "\ufffe\x00",
    ],
)
def test_files_of_wrong_types_are_named_in_one_line(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_detections(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
