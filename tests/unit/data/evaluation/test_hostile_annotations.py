"""Annotation files with names that leave their folder, or with values of the wrong type: one line, before anything runs."""

import json

import pytest
from support.coco_layout import write_coco
from support.video_layouts import write_entityseg, write_vipseg, write_vspw, write_ytvis

from entitysam.data.evaluation.coco_panoptic import CocoPanopticImages
from entitysam.data.evaluation.vipseg import VIPSegVideos
from entitysam.data.evaluation.vspw import VSPWVideos
from entitysam.data.evaluation.ytvis import EntitySegImages, YouTubeVIS
from entitysam.data.images import DataError
from entitysam.io.paths import UnsafePathError


def vipseg(root):
    write_vipseg(root)
    return root / "panoptic_gt_VIPSeg_val.json", lambda: VIPSegVideos(root)


def coco(root):
    write_coco(root, count=2)
    return root / "annotations/panoptic_train2017.json", lambda: CocoPanopticImages(root, "train2017")


def ytvis(root):
    write_ytvis(root)
    return root / "valid.json", lambda: YouTubeVIS(root)


def entityseg(root):
    write_entityseg(root)
    return root / "annotations/entityseg_val_lr.json", lambda: EntitySegImages(root)


def put(contents, place, value):
    *path, last = place
    for key in path:
        contents = contents[key]
    contents[last] = value


NAMES = {
    "vipseg file": (vipseg, [("annotations", 0, "annotations", 1, "file_name")]),
    "vipseg video": (vipseg, [("annotations", 0, "video_id"), ("videos", 0, "video_id")]),
    "coco mask": (coco, [("annotations", 0, "file_name")]),
    "coco image": (coco, [("images", 0, "file_name")]),
    "ytvis": (ytvis, [("videos", 0, "file_names", 1)]),
    "entityseg": (entityseg, [("images", 0, "file_name")]),
}


@pytest.mark.parametrize("name", ["/victim/0.png", "../../victim/0.png", "C:\\victim.png", "a/\x00.png", "x" * 300])
@pytest.mark.parametrize("case", NAMES)
def test_names_never_leave_their_folder(tmp_path, case, name):
    write, places = NAMES[case]
    path, load = write(tmp_path / "data")
    contents = json.loads(path.read_text())
    for place in places:
        put(contents, place, name)
    path.write_text(json.dumps(contents))
    with pytest.raises(UnsafePathError, match=f"{path.name}: (video|image) ") as caught:
        load()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["/victim", "../victim"])
def test_a_listing_never_leaves_its_folder(tmp_path, name):
    root = write_vspw(tmp_path / "data")
    (root / "val.txt").write_text(f"a\n{name}\n")
    with pytest.raises(UnsafePathError, match=r"val\.txt: the file name"):
        VSPWVideos(root)


TYPES = {
    "vipseg list": (vipseg, ("annotations",), 5),
    "vipseg video": (vipseg, ("annotations", 0), None),
    "vipseg id": (vipseg, ("annotations", 0, "video_id"), [1]),
    "vipseg frame": (vipseg, ("annotations", 0, "annotations", 0), "x"),
    "vipseg name": (vipseg, ("annotations", 0, "annotations", 0, "file_name"), 3),
    "vipseg segments": (vipseg, ("annotations", 0, "annotations", 0, "segments_info"), [5]),
    "vipseg height": (vipseg, ("videos", 0, "images", 0, "height"), float("inf")),
    "vipseg huge": (vipseg, ("videos", 0, "images", 0, "width"), 10**9),
    "vipseg category": (vipseg, ("categories", 0, "id"), "cat"),
    "coco image": (coco, ("images", 0), []),
    "coco id": (coco, ("images", 0, "id"), {}),
    "coco height": (coco, ("images", 0, "height"), -1),
    "coco number": (coco, ("annotations", 0, "image_id"), float("nan")),
    "ytvis names": (ytvis, ("videos", 0, "file_names"), None),
    "ytvis annotations": (ytvis, ("annotations",), "x"),
    "ytvis video": (ytvis, ("annotations", 0, "video_id"), [7]),
    "entityseg image": (entityseg, ("images", 0, "width"), "wide"),
    "entityseg annotation": (entityseg, ("annotations", 0), 1),
}


@pytest.mark.parametrize("case", TYPES)
def test_wrong_types_are_named(tmp_path, case):
    write, place, value = TYPES[case]
    path, load = write(tmp_path / "data")
    contents = json.loads(path.read_text())
    put(contents, place, value)
    path.write_text(json.dumps(contents))
    with pytest.raises(DataError) as caught:
        load()
    text = str(caught.value)
    assert text.startswith(f"{path}: {place[0]}")
    assert "\n" not in text


@pytest.mark.parametrize("write", [vipseg, coco, ytvis, entityseg])
def test_nested_too_deeply(tmp_path, write):
    path, load = write(tmp_path / "data")
    path.write_text('{"videos": ' + "[" * 100_000)
    with pytest.raises(DataError, match="nested too deeply"):
        load()
