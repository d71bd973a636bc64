"""COCO-style instance json and EntitySeg."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from entitysam.data import DataError
from entitysam.data.prepare.checks.training import check_entityseg, check_instances
from entitysam.data.training.instances import CocoInstances, EntitySeg
from entitysam.io.paths import UnsafePathError
from entitysam.ops import rle_decode, rle_encode

SAMPLE = Path(__file__).resolve().parents[4] / ".." / "shared" / "data" / "coco_instances_2"
SHAPE = (30, 40)


def box_mask(top, left, bottom, right):
    mask = np.zeros(SHAPE, bool)
    mask[top:bottom, left:right] = True
    return mask


def uncompressed(mask):
    """COCO's uncompressed code: lengths of runs of 0 and 1 in turn, column by column."""
    flat = mask.ravel(order="F")
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *ends, flat.size]).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


SMALL, BIG, CROWD = box_mask(5, 5, 10, 12), box_mask(2, 2, 20, 30), box_mask(22, 0, 30, 40)
POLYGON = [[31.0, 1.0, 39.0, 1.0, 39.0, 11.0, 31.0, 11.0]]


def write_instances(root, annotations_name="instances_train.json", image="train/a.jpg"):
    (root / image).parent.mkdir(parents=True, exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    Image.fromarray(np.zeros((*SHAPE, 3), np.uint8)).save(root / image)
    entries = [(rle_encode(SMALL), 0), (uncompressed(BIG), 0), (POLYGON, 0), (uncompressed(CROWD), 1)]
    annotations = [
        {"id": 10 + i, "image_id": 1, "category_id": 3, "segmentation": segmentation, "iscrowd": crowd}
        for i, (segmentation, crowd) in enumerate(entries)
    ]
    index = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": SHAPE[0], "width": SHAPE[1]}],
        "annotations": annotations,
        "categories": [{"id": 3, "name": "thing"}],
    }
    (root / "annotations" / annotations_name).write_text(json.dumps(index))
    return root


def edit(root, change, name="instances_train.json"):
    path = root / "annotations" / name
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))


def test_all_forms_of_masks_with_the_smaller_one_in_front(tmp_path):
    sample = CocoInstances(write_instances(tmp_path), "train").load(0)
    np.testing.assert_array_equal(sample.ids == 1, SMALL)
    np.testing.assert_array_equal(sample.ids == 2, BIG & ~SMALL)
    np.testing.assert_array_equal(sample.ids == 3, box_mask(1, 31, 11, 39))
    assert not sample.ids[22:].any()  # the crowd
    assert sample.categories == {1: 3, 2: 3, 3: 3}
    assert check_instances(tmp_path, "train").problems == []


def test_entityseg_finds_images_in_the_folders_of_its_archives(tmp_path):
    write_instances(tmp_path, "entityseg_train_01.json", "images/entity_01_11580/a.jpg")
    dataset = EntitySeg(tmp_path, ["entityseg_train_01.json"])
    assert dataset.load(0).source.endswith("images/entity_01_11580/a.jpg")
    assert check_entityseg(tmp_path, "entityseg_train_01").problems == []
    with pytest.raises(DataError, match=r"entityseg_train_02\.json: no such file"):
        EntitySeg(tmp_path)


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the COCO samples are not on this machine")
def test_real_images():
    dataset = CocoInstances(SAMPLE, "train")
    samples = {Path(sample.source).stem: sample for sample in map(dataset.load, range(len(dataset)))}
    assert samples["000000397133"].image.shape == (427, 640, 3)
    assert samples["000000037777"].image.shape == (230, 352, 3)
    assert len(samples["000000397133"].categories) == 19
    assert len(samples["000000037777"].categories) == 14
    assert all(len(np.unique(sample.ids)) == len(sample.categories) + 1 for sample in samples.values())
    assert check_instances(SAMPLE, "train").problems == []


def other_size(index):
    index["annotations"][0]["segmentation"] = rle_encode(np.ones((5, 5), bool))


BAD = {
    "unreadable": (
        lambda index: index["annotations"][2].update(segmentation=[[1.0, 2.0]]),
        r"annotation 12 of a\.jpg: unusable segmentation",
    ),
    "no code": (
        lambda index: index["annotations"][0].update(segmentation={"size": [30, 40]}),
        r"annotation 10 of a\.jpg: unusable segmentation",
    ),
    "other size": (other_size, r"annotation 10 of a\.jpg: .*its size \[height, width\] is \[5, 5\]"),
    "image size": (lambda index: index["images"][0].update(height=31), r"a\.jpg: "),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_annotations_are_named(tmp_path, name):
    change, message = BAD[name]
    edit(write_instances(tmp_path), change)
    with pytest.raises(DataError, match=message):
        CocoInstances(tmp_path, "train").load(0)
    assert check_instances(tmp_path, "train").problems


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: index["annotations"][0].update(image_id=2), "annotation 10: image_id 2 is not in 'images'"),
        (lambda index: index["annotations"][0].update(category_id=4), "annotation 10: category 4 is not in"),
        (lambda index: index["annotations"][0].pop("segmentation"), r"annotations\[0\]: no 'segmentation'"),
    ],
)
def test_a_json_that_contradicts_itself_is_refused(tmp_path, change, message):
    edit(write_instances(tmp_path), change)
    with pytest.raises(DataError, match=f"instances_train.json: {message}"):
        CocoInstances(tmp_path, "train")


def test_masks_without_pixels_are_reported(tmp_path):
    empty = rle_encode(np.zeros(SHAPE, bool))
    edit(write_instances(tmp_path), lambda index: index["annotations"][0].update(segmentation=empty))
    assert not rle_decode(empty).any()
    assert any("annotation 10 has no pixels" in problem for problem in check_instances(tmp_path, "train").problems)


CRASHERS = {
    "nan": [[float("nan"), 1, 9, 1, 9, 9]],
    "far": [[1e9, 1, 9, 1, 9, 9]],
    "code": {"size": [30, 40], "counts": "zz"},
}


@pytest.mark.parametrize("name", CRASHERS)
def test_a_bad_mask_with_a_box_is_left_out_with_a_warning(tmp_path, name, caplog):
    change = {"segmentation": CRASHERS[name], "bbox": [1, 1, 8, 8]}
    edit(write_instances(tmp_path), lambda index: index["annotations"][0].update(change))
    sample = CocoInstances(tmp_path, "train").load(0)
    assert len(sample.categories) == 2
    assert "annotation 10 of a.jpg: unusable segmentation" in caplog.text
    problems = check_instances(tmp_path, "train", workers=2).problems
    assert len(problems) == 1
    assert problems[0].startswith(f"{tmp_path / 'annotations/instances_train.json'}: annotation 10 of a.jpg: unusable")


@pytest.mark.parametrize("name", ["../b.jpg", "/b.jpg", "a\x00.jpg"])
def test_names_never_leave_the_image_folder(tmp_path, name):
    edit(write_instances(tmp_path), lambda index: index["images"][0].update(file_name=name))
    with pytest.raises(UnsafePathError, match=r"instances_train\.json: image 1: the file name"):
        CocoInstances(tmp_path, "train")


def test_the_size_of_the_json_is_checked_before_masks_of_that_size_are_made(tmp_path):
    edit(write_instances(tmp_path), lambda index: index["images"][0].update(height=32768, width=32768))
    edit(tmp_path, lambda index: index["annotations"].clear())
    with pytest.raises(DataError, match=r"a\.jpg: image is 40x30, its annotation 32768x32768"):
        CocoInstances(tmp_path, "train").load(0)
