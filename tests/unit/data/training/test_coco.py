"""The COCO panoptic reader and its check, on made and on real images, and on every kind of broken data."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.coco_layout import LARGE, annotation_file, edit_index, write_coco

from entitysam.data import DataError
from entitysam.data.images import read_id_map
from entitysam.data.prepare.checks.training import check_coco
from entitysam.data.training.coco import CocoPanoptic
from entitysam.data.training.samples import compact_ids
from entitysam.ops import ids_to_rgb
from entitysam.registry import DATASETS, build

SAMPLES = Path(__file__).resolve().parents[4] / ".." / "shared" / "data"


def test_every_segment_is_an_entity_and_crowds_are_void(tmp_path):
    dataset = build(DATASETS, {"name": "coco_panoptic", "root": write_coco(tmp_path), "split": "train2017"})
    sample = dataset.load(0)
    raw = read_id_map(tmp_path / "panoptic_train2017/000.png")
    assert sample.image.shape == (40, 60, 3)
    assert sample.image.dtype == np.uint8
    assert sample.ids.dtype == np.int32
    assert sample.categories == {1: 7, 2: 1}
    np.testing.assert_array_equal(sample.ids == 1, raw == 12)
    np.testing.assert_array_equal(sample.ids == 2, raw == LARGE)
    assert not sample.ids[raw == 13].any()
    assert sample.source.endswith("train2017/000.jpg")


def test_pngs_may_stand_in_the_annotations_folder(tmp_path):
    write_coco(tmp_path)
    (tmp_path / "panoptic_train2017").rename(tmp_path / "annotations/panoptic_train2017")
    assert CocoPanoptic(tmp_path).load(0).categories == {1: 7, 2: 1}


def test_an_image_of_crowds_only_has_no_entities(tmp_path):
    ids = np.full((20, 20), 3, np.int32)
    write_coco(tmp_path, ids, [{"id": 3, "category_id": 1, "iscrowd": 1, "area": 400}])
    sample = CocoPanoptic(tmp_path).load(0)
    assert sample.categories == {}
    assert not sample.ids.any()
    assert len(check_coco(tmp_path, "train2017").empty) == 1


def test_compact_ids_against_a_loop():
    rng = np.random.default_rng(0)
    listed = rng.permutation(2**24 - 1)[:30] + 1
    ids = rng.choice(np.concatenate([listed, [0, 5, 2**24 - 1]]), (50, 40))
    expected = np.zeros_like(ids)
    for position, number in enumerate(listed):
        expected[ids == number] = position + 1
    np.testing.assert_array_equal(compact_ids(ids, listed), expected)
    assert not compact_ids(ids, np.empty(0, np.int64)).any()


def link_sample(root: Path, image: Path, mask: Path) -> None:
    for folder in ("train2017", "annotations", "panoptic_train2017"):
        (root / folder).mkdir(exist_ok=True)
    (root / "train2017" / f"{image.stem}.jpg").symlink_to(image.resolve())
    (root / "panoptic_train2017" / mask.name).symlink_to(mask.resolve())


def real_samples(root: Path) -> None:
    """Links the two sample sets into one COCO folder."""
    first = SAMPLES / "coco_panoptic_sample/sample_data"
    index = json.loads((first / "panoptic_examples.json").read_text())
    for annotation in index["annotations"]:
        name = Path(annotation["file_name"])
        link_sample(root, first / "input_images" / f"{name.stem}.jpg", first / "panoptic_examples" / name.name)
    second = SAMPLES / "coco_panoptic_39769"
    segments = json.loads((second / "coco_panoptic_annotations.txt").read_text())
    image = {"id": 39769, "file_name": "000000039769.jpg", "height": 480, "width": 640}
    index["images"].append(image)
    index["annotations"].append({"image_id": 39769, "file_name": "000000039769.png", "segments_info": segments})
    link_sample(root, second / "000000039769.png", second / "coco_panoptic/000000039769.png")
    annotation_file(root).write_text(json.dumps(index))


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the COCO samples are not on this machine")
def test_real_images_are_read_and_pass_the_check(tmp_path):
    real_samples(tmp_path)
    dataset = CocoPanoptic(tmp_path)
    samples = [dataset.load(index) for index in range(len(dataset))]
    assert [sample.image.shape for sample in samples] == [(427, 640, 3), (360, 640, 3), (480, 640, 3)]
    index = json.loads(annotation_file(tmp_path).read_text())
    for sample, annotation in zip(samples, index["annotations"]):
        expected = [segment for segment in annotation["segments_info"] if not segment["iscrowd"]]
        assert list(sample.categories.values()) == [segment["category_id"] for segment in expected]
        areas = np.bincount(sample.ids.ravel(), minlength=len(expected) + 1)[1:]
        assert areas.tolist() == [segment["area"] for segment in expected]
    report = check_coco(tmp_path, "train2017")
    assert report.checked == 3
    assert report.problems == []


def drop_file(name):
    return lambda root: (root / name).unlink()


def repaint(old, new):
    def change(root):
        ids = read_id_map(root / "panoptic_train2017/000.png")
        ids[ids == old] = new
        Image.fromarray(ids_to_rgb(ids)).save(root / "panoptic_train2017/000.png")

    return change


def resize_png(root):
    Image.open(root / "panoptic_train2017/000.png").crop((0, 0, 59, 40)).save(root / "panoptic_train2017/000.png")


def cut_jpeg(root):
    path = root / "train2017/000.jpg"
    path.write_bytes(path.read_bytes()[:300])


def json_edit(change):
    return lambda root: edit_index(root, lambda index: change(index, index["annotations"][0]["segments_info"]))


DISAGREEMENTS = {
    "missing image": (drop_file("train2017/000.jpg"), r"000\.jpg: no such file"),
    "missing png": (drop_file("panoptic_train2017/000.png"), r"000\.png: no such file"),
    "truncated image": (cut_jpeg, r"000\.jpg: not an image that can be read"),
    "other size": (resize_png, r"000\.jpg: image is 60x40, its annotation 59x40"),
    "unlisted id": (repaint(0, 99), r"000\.png: id 99 is in the PNG but not in the json"),
    "no pixels": (repaint(12, 0), r"000\.png: segment 12 is in the json but has no pixels"),
    "wrong area": (
        json_edit(lambda index, segments: segments[0].update(area=4)),
        r"000\.png: segment 12 has area 4 in the json, 1100 in the PNG",
    ),
    "unknown category": (
        json_edit(lambda index, segments: segments[0].update(category_id=5)),
        r"000\.png: segment 12 has category 5, which is not in 'categories'",
    ),
    "listed twice": (
        json_edit(lambda index, segments: segments.append(segments[0])),
        r"000\.png: segment 12 is listed twice",
    ),
    "id out of range": (
        json_edit(lambda index, segments: segments[0].update(id=2**24)),
        r"000\.png: segment 16777216 is outside",
    ),
    "no such image": (
        json_edit(lambda index, segments: index["annotations"][0].update(image_id=5)),
        r"000\.png: image_id 5 is not in 'images'",
    ),
}


@pytest.mark.parametrize("name", DISAGREEMENTS)
def test_check_reports_each_disagreement_by_file(tmp_path, name):
    spoil, message = DISAGREEMENTS[name]
    write_coco(tmp_path, count=2)
    assert check_coco(tmp_path, "train2017").problems == []
    spoil(tmp_path)
    report = check_coco(tmp_path, "train2017", workers=2)
    assert any(re.search(message, problem) for problem in report.problems), report.problems
    assert not any("001." in problem for problem in report.problems)


@pytest.mark.parametrize("name", ["unknown category", "listed twice", "id out of range", "no such image"])
def test_a_json_that_contradicts_itself_is_refused_at_once(tmp_path, name):
    spoil, message = DISAGREEMENTS[name]
    spoil(write_coco(tmp_path))
    with pytest.raises(DataError, match=message):
        CocoPanoptic(tmp_path)


@pytest.mark.parametrize("name", ["missing image", "missing png", "truncated image", "other size"])
def test_reading_a_bad_image_names_it(tmp_path, name):
    spoil, message = DISAGREEMENTS[name]
    dataset = CocoPanoptic(write_coco(tmp_path))
    spoil(tmp_path)
    with pytest.raises(DataError, match=message):
        dataset.load(0)


def test_what_is_missing_is_said_with_where_to_read_how_to_get_it(tmp_path):
    with pytest.raises(DataError, match=r"train2017: no such folder\. datasets/README\.md"):
        CocoPanoptic(tmp_path)
    write_coco(tmp_path)
    annotation_file(tmp_path).unlink()
    with pytest.raises(DataError, match=r"panoptic_train2017\.json: no such file\. datasets/README\.md"):
        CocoPanoptic(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [', "broken JSON"),
        ("[]", "no 'images' in it"),
        ('{"images": [], "categories": []}', "no 'annotations' in it"),
        ('{"images": [{}], "annotations": [], "categories": []}', "images\\[0\\]: no 'id'"),
    ],
)
def test_a_bad_json_is_named(tmp_path, text, message):
    annotation_file(write_coco(tmp_path)).write_text(text)
    with pytest.raises(DataError, match=f"panoptic_train2017.json: {message}"):
        CocoPanoptic(tmp_path)
