"""Checks and conversions of evaluation sets, through tools/prepare_data.py's functions."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.video_layouts import write_image, write_vipseg, write_vspw, write_ytvis

from entitysam.data.evaluation.vipseg import VIPSegVideos
from entitysam.data.images import DataError, read_id_map
from entitysam.data.prepare.checks.evaluation import CHECKS
from entitysam.data.prepare.vipseg_layout import convert_scalabel, convert_vipseg, vipseg_category
from entitysam.io.paths import UnsafePathError
from entitysam.ops import rle_encode


def test_check_vipseg(tmp_path):
    root = write_vipseg(tmp_path)
    check = CHECKS["vipseg"].run
    report = check(root, "val")
    assert (report.checked, report.problems) == (8, [])
    (root / "images/a/001.jpg").unlink()
    mask = root / "panomasksRGB/b/002.png"
    mask.write_bytes(mask.read_bytes()[:40])
    path = root / "panoptic_gt_VIPSeg_val.json"
    contents = json.loads(path.read_text())
    contents["annotations"][0]["annotations"][3]["segments_info"][0]["area"] += 1
    contents["annotations"][0]["annotations"][2]["segments_info"][0]["category_id"] = 99
    path.write_text(json.dumps(contents))
    problems = "\n".join(check(root, "val").problems)
    assert problems.count("\n") == 3
    for part in (
        "a/001.jpg: no such file",
        "b/002.png",
        "a/003.png: segment 9 has area",
        "a/002.png: segment 9 has cat",
    ):
        assert part in problems


def test_check_vspw(tmp_path):
    root = write_vspw(tmp_path)
    check = CHECKS["vspw"].run
    assert check(root, "val").problems == []
    write_image(root / "data/a/origin/004.jpg", (24, 44))
    Image.fromarray(np.full((24, 40), 130, np.uint8)).save(root / "data/b/mask/000.png")
    problems = check(root, "val").problems
    assert len(problems) == 2
    assert "004.jpg: image is 44x24, its annotation 40x24" in problems[0]
    assert "000.png: label 130 is not the label of a category" in problems[1]


def test_check_youtube_vis(tmp_path):
    root = write_ytvis(tmp_path, occlusion=True)
    check = CHECKS["ovis"].run
    assert check(root, "valid").problems == []
    contents = json.loads((root / "valid.json").read_text())
    contents["annotations"][0]["segmentations"].pop()
    contents["annotations"][1]["category_id"] = 44
    contents["annotations"][2]["occlusion"][1] = "a_bit"
    contents["annotations"][3]["segmentations"][0]["size"] = [9, 9]
    (root / "valid.json").write_text(json.dumps(contents))
    problems = check(root, "valid").problems
    for part in (
        "annotation 1: 3 masks for 4",
        "annotation 2: category 44",
        "occlusion 'a_bit'",
        "annotation 4, frame 0",
    ):
        assert any(part in problem for problem in problems), part
    assert len(problems) == 4


def write_release(root):
    """VIPSeg's original form: 16 x 32 pixels, wall, two persons, void."""
    values = np.zeros((16, 32), np.uint16)
    values[:8] = 1
    values[4:12, 4:12] = 6100
    values[4:12, 20:28] = 6101
    for t in range(2):
        write_image(root / "imgs/clip" / f"{t:03d}.jpg", (16, 32))
        path = root / "panomasks/clip" / f"{t:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(path)
    (root / "val.txt").write_text("clip\n")
    return values


def test_the_720p_form_of_vipseg(tmp_path):
    values = write_release(tmp_path / "release")
    assert convert_vipseg(tmp_path / "release", tmp_path / "out", ["val"]) == 1
    ids = read_id_map(tmp_path / "out/panomasksRGB/clip/000.png")
    assert ids.shape == (720, 1440)
    np.testing.assert_array_equal(ids[22::45, 22::45], values)
    dataset = VIPSegVideos(tmp_path / "out")
    segments = {segment["id"]: segment for segment in dataset.videos[0].annotation["segments"][0]}
    assert {number: segment["category_id"] for number, segment in segments.items()} == {1: 0, 6100: 60, 6101: 60}
    assert segments[6100]["area"] == 64 * 45 * 45
    assert segments[6100]["bbox"] == [180, 180, 360, 360]
    assert CHECKS["vipseg"].run(tmp_path / "out", "val").problems == []


def test_values_of_the_original_masks():
    assert [vipseg_category(value, "v") for value in (1, 124, 6100, 6199, 12400)] == [0, 123, 60, 60, 123]
    with pytest.raises(DataError, match="mask value 12500 is not that of a category"):
        vipseg_category(12500, "v")


def test_a_release_with_holes(tmp_path):
    write_release(tmp_path)
    (tmp_path / "imgs/clip/001.jpg").unlink()
    with pytest.raises(DataError, match=r"imgs/clip/001.jpg: no such file"):
        convert_vipseg(tmp_path, tmp_path / "out", ["val"])
    assert not (tmp_path / "out/panoptic_gt_VIPSeg_val.json").exists()
    with pytest.raises(DataError, match=r"test.txt: no such file"):
        convert_vipseg(tmp_path, tmp_path / "out", ["test"])


def write_scalabel(root, overlap=False):
    masks = np.zeros((2, 10, 12), bool)
    masks[0, 2:5, 2:6] = True
    masks[1, 4 if overlap else 6 : 9, 3:9] = True
    frames = []
    for t in range(2):
        write_image(root / "images/clip" / f"clip-{t}.jpg", (10, 12))
        labels = [
            {"id": str(900 + n), "category": "car" if n else "bus", "rle": rle_encode(mask)}
            for n, mask in enumerate(masks)
        ]
        frames.append({"name": f"clip-{t}.jpg", "videoName": "clip", "frameIndex": t, "labels": labels[t:]})
    (root / "labels").mkdir()
    (root / "labels/clip.json").write_text(json.dumps(frames[::-1]))
    return masks


def test_scalabel(tmp_path):
    masks = write_scalabel(tmp_path)
    assert convert_scalabel(tmp_path / "labels", tmp_path / "images", tmp_path / "out", "val") == 1
    np.testing.assert_array_equal(
        read_id_map(tmp_path / "out/panomasksRGB/clip/clip-0.png"), masks[0] + 2 * masks[1].astype(int)
    )
    np.testing.assert_array_equal(read_id_map(tmp_path / "out/panomasksRGB/clip/clip-1.png"), 2 * masks[1].astype(int))
    dataset = VIPSegVideos(tmp_path / "out")
    assert {category["name"]: category["id"] for category in dataset.categories} == {"bus": 0, "car": 1}
    assert [s["category_id"] for s in dataset.videos[0].annotation["segments"][0]] == [0, 1]


def test_scalabel_masks_may_not_overlap(tmp_path):
    write_scalabel(tmp_path, overlap=True)
    with pytest.raises(DataError, match=r"clip-0.jpg: the mask of label 901 overlaps"):
        convert_scalabel(tmp_path / "labels", tmp_path / "images", tmp_path / "out", "val")


@pytest.mark.parametrize("name", ["/victim", "../victim", "images/../../victim"])
def test_conversions_never_write_outside(tmp_path, name):
    write_release(tmp_path / "release")
    (tmp_path / "release/val.txt").write_text(f"clip\n{name}\n")
    with pytest.raises(UnsafePathError, match="the file name"):
        convert_vipseg(tmp_path / "release", tmp_path / "out", ["val"])
    assert not (tmp_path / "out").exists()
    write_scalabel(tmp_path / "bdd")
    labels = tmp_path / "bdd/labels/clip.json"
    frames = json.loads(labels.read_text())
    for key in ("videoName", "name"):
        labels.write_text(json.dumps([{**frame, key: name} for frame in frames]))
        if key == "videoName" or name != "/victim":  # of a frame's name only the last part is used
            with pytest.raises((UnsafePathError, DataError)):
                convert_scalabel(tmp_path / "bdd/labels", tmp_path / "bdd/images", tmp_path / "out", "val")
    assert not (tmp_path / "out").exists()


def test_conversions_never_write_through_links_or_over_their_input(tmp_path):
    write_scalabel(tmp_path / "bdd")
    folders = tmp_path / "bdd/labels", tmp_path / "bdd/images"
    with pytest.raises(DataError, match="would overwrite"):
        convert_scalabel(*folders, tmp_path / "bdd", "val")
    (tmp_path / "out/images").mkdir(parents=True)
    (tmp_path / "out/images/clip").symlink_to(tmp_path / "bdd/images/clip")
    with pytest.raises(UnsafePathError, match="symbolic link"):
        convert_scalabel(*folders, tmp_path / "out", "val")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "5",
        "[]",
        '[{"name": 5}]',
        '{"frames": [{"name": "a"}]}',
        '[{"name": "a", "videoName": "b", "labels": [5]}]',
    ],
)
def test_scalabel_files_of_wrong_types(tmp_path, text):
    write_scalabel(tmp_path)
    (tmp_path / "labels/clip.json").write_text(text)
    with pytest.raises(ValueError, match=r"clip\.json: ") as caught:
        convert_scalabel(tmp_path / "labels", tmp_path / "images", tmp_path / "out", "val")
    assert "\n" not in str(caught.value)


def tool(monkeypatch, *words):
    """tools/prepare_data.py in this process."""
    path = Path(__file__).parents[5] / "tools" / "prepare_data.py"
    spec = importlib.util.spec_from_file_location("prepare_data", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", [str(path), *map(str, words)])
    return module.main()


def test_the_commands(monkeypatch, capsys, tmp_path):
    write_release(tmp_path / "release")
    out = tmp_path / "out"
    assert tool(monkeypatch, "vipseg", "--root", tmp_path / "release", "--out", out, "--workers", 1) == 0
    assert tool(monkeypatch, "check", "vipseg", "--root", out, "--workers", 1) == 0
    assert "2 images checked, 0 problems" in capsys.readouterr().out
    (out / "images/clip/000.jpg").unlink()
    assert tool(monkeypatch, "check", "vipseg", "--root", out, "--workers", 1) == 1
    write_scalabel(tmp_path / "bdd")
    folders = ("--labels", tmp_path / "bdd/labels", "--images", tmp_path / "bdd/images", "--out", tmp_path / "bdd_out")
    assert tool(monkeypatch, "scalabel", *folders) == 0
    assert "1 videos in" in capsys.readouterr().out
    assert tool(monkeypatch, "scalabel", "--labels", tmp_path / "none", *folders[2:]) == 1
    assert capsys.readouterr().err.startswith(f"prepare_data: {tmp_path / 'none'}: no such folder")
