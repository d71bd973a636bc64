"""Detections land on the frames that their file means, whatever it numbers them by; numbers that fit no rule raise."""

import json

import pytest
from PIL import Image

from entitysam.data.detections.matching import ClipDetections
from entitysam.data.evaluation.mot import AnnotatedTracks
from entitysam.data.images import DataError

SIZE = (16, 16)


def names_from(first, count=8):
    return [f"{number:06d}" for number in range(first, first + count)]


def detected(path, names, has_images=True, **options):
    """First coordinate of the box on every frame, None where there is none; and the rule."""
    found = ClipDetections(path, "clip", names, range(len(names)), has_images=has_images, **options)
    boxes = [found.at(index, SIZE).boxes for index in range(len(names))]
    return [int(box[0, 0]) if len(box) else None for box in boxes], found.rule


def box(number):
    return [number, 0, 5, 5]


def write_coco_video(path, file_names, frame_ids):
    """Box k is on the k-th image."""
    images = [{"id": i, "file_name": name} for i, name in enumerate(file_names)]
    for image, number in zip(images, frame_ids or []):
        image["frame_id"] = number
    annotations = [{"image_id": i, "bbox": box(i)} for i in range(len(images))]
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


def write_mot(path, numbers):
    path.write_text("".join(f"{number},-1,{index},0,5,5,1\n" for index, number in enumerate(numbers)))
    return path


def test_frame_id_beats_the_names_that_a_video_does_not_have(tmp_path):
    files = [f"{number:05d}.jpg" for number in range(1, 9)]  # as FFmpeg writes them
    invented = [f"{number:05d}" for number in range(8)]
    path = write_coco_video(tmp_path / "a.json", files, range(8))
    assert detected(path, invented, False) == (list(range(8)), "frame_id, counted from 0")
    path = write_coco_video(tmp_path / "b.json", files, range(1, 9))
    assert detected(path, invented, False) == (list(range(8)), "frame_id, counted from 1")
    path = write_coco_video(tmp_path / "c.json", files, None)
    assert detected(path, invented, False) == (list(range(8)), "number in the file's image names, counted from 1")


def test_image_names_where_one_side_has_all_of_the_others(tmp_path):
    path = write_coco_video(tmp_path / "a.json", [f"{name}.jpg" for name in names_from(0, 20)], range(0, 600, 30))
    assert detected(path, names_from(4)) == (list(range(4, 12)), "image names")


def test_frame_id_where_the_names_of_both_sides_differ_by_one(tmp_path):
    path = write_coco_video(tmp_path / "a.json", [f"{name}.jpg" for name in names_from(0)], range(8))
    assert detected(path, names_from(1)) == (list(range(8)), "frame_id, counted from 0")


@pytest.mark.parametrize(
    ("numbers", "first_name", "expected"),
    [
        (range(1, 9), 0, list(range(8))),
        (range(8), 0, list(range(8))),  # counts from 0
        (range(8), 1, list(range(8))),
        (range(1, 9), 1, list(range(8))),
        (range(1, 8), 0, [*range(7), None]),  # nothing on the last frame
        (range(4, 12), 4, list(range(8))),  # the numbers in the names
        ([5, 6], 4, [None, 0, 1, None, None, None, None, None]),
        (range(1, 20), 1, list(range(8))),  # the file of a longer video
    ],
)
def test_mot_numbers(tmp_path, numbers, first_name, expected):
    assert detected(write_mot(tmp_path / "a.txt", numbers), names_from(first_name))[0] == expected


@pytest.mark.parametrize(("numbers", "expected"), [(range(8), list(range(8))), (range(1, 9), list(range(8)))])
def test_mot_numbers_of_a_video(tmp_path, numbers, expected):
    assert detected(write_mot(tmp_path / "a.txt", numbers), names_from(0), has_images=False)[0] == expected


@pytest.mark.parametrize(("first", "first_name"), [(4, 4), (0, 4), (1, 1), (0, 0)])
def test_image_ids_of_coco_results(tmp_path, first, first_name):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"image_id": first + i, "bbox": box(i)} for i in range(8)]))
    assert detected(path, names_from(first_name))[0] == list(range(8))


@pytest.mark.parametrize("numbers", [range(100, 108), [3, 50], [-3, 2]])
def test_numbers_that_fit_no_rule_raise(tmp_path, numbers):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"image_id": number, "bbox": box(0)} for number in numbers]))
    with pytest.raises(DataError, match=rf"a.json: its frame numbers {min(numbers)}..{max(numbers)} do not fit the 8"):
        detected(path, names_from(0))


def test_a_clip_that_is_cut_off_ends_before_its_file(tmp_path):
    path = write_mot(tmp_path / "a.txt", [2, 5, 90])
    assert detected(path, names_from(0), False, open_end=True)[0] == [None, 0, None, None, 1, None, None, None]
    with pytest.raises(DataError, match="do not fit"):
        detected(path, names_from(0), False)


def test_only_image_suffixes_are_taken_off_names(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"image_id": f"clip.{i:04d}", "bbox": box(i)} for i in range(3)]))
    assert detected(path, [f"clip.{i:04d}" for i in range(3)])[0] == [0, 1, 2]
    path.write_text(json.dumps([{"image_id": f"clip.{i:04d}.JPG", "bbox": box(i)} for i in range(3)]))
    assert detected(path, [f"clip.{i:04d}" for i in range(3)])[0] == [0, 1, 2]


@pytest.mark.parametrize("first", [0, 1, 4])
def test_evaluation_of_mot_tracks(tmp_path, first):
    (tmp_path / "images").mkdir()
    for name in names_from(4, 3):
        Image.new("RGB", SIZE).save(tmp_path / "images" / f"{name}.png")
    (tmp_path / "gt.txt").write_text("".join(f"{first + i},7,{i},0,5,5,1\n" for i in range(3)))
    (video,) = AnnotatedTracks(tmp_path / "gt.txt", tmp_path / "images").videos
    assert [file.stem for file in video.frame_files] == names_from(4, 3)
    assert [frame.objects.boxes[0, 0] for frame in video.annotation["frames"]] == [0, 1, 2]
    (tmp_path / "gt.txt").write_text("50,7,0,0,5,5,1\n")
    with pytest.raises(DataError, match=r"gt.txt: its frame numbers 50..50 do not fit the 3 images"):
        AnnotatedTracks(tmp_path / "gt.txt", tmp_path / "images")
