"""Synthetic scenes: exact ids, what happens in them, and files that depend on the seed alone."""

import importlib.metadata
import json

import numpy as np
import pytest

from entitysam.data.images import read_id_map
from entitysam.data.prepare.checks.training import check_coco
from entitysam.data.synthetic.demo import ACTORS, BACKGROUND
from entitysam.data.synthetic.render import CATEGORIES, demo_clip, render, render_video
from entitysam.data.synthetic.scene import MIN_VISIBLE, Layer, Motion, Scene
from entitysam.data.synthetic.shapes import FAMILIES, Part, Shape, ellipse, random_shape
from entitysam.data.synthetic.textures import PHOTOGRAPHS
from entitysam.data.synthetic.writer import SyntheticSet, write_synthetic
from entitysam.data.training.coco import CocoPanoptic
from entitysam.data.training.panoptic_videos import PanopticVideos

SIZE = (96, 160)
GREY = np.full((8, 8, 3), 128, np.uint8)
WHITE = np.full((8, 8, 3), 255, np.uint8)


def scene(*shapes_and_motions, **film):
    layers = [Layer(8, None, GREY, 1.0)]
    layers += [Layer(0, shape, WHITE, 2.2, motion) for shape, motion in shapes_and_motions]
    return Scene(layers, **film)


def filmed(scene_, num_frames=1):
    return render(scene_, num_frames, SIZE, np.random.default_rng(0))


def disc(hole=0.0):
    return Shape([Part([ellipse(0, 0, 1, 1, 200), *([ellipse(0, 0, hole, hole, 200)] if hole else [])])])


def pixel_distance(x, y):
    """[H, W] distance of pixel centres to a place, all in frame heights."""
    height, width = SIZE
    rows, columns = np.mgrid[:height, :width] + 0.5
    return np.hypot((columns - width / 2) / height - x, (rows - height / 2) / height - y)


def test_ids_are_those_of_the_analytic_shape():
    motion = Motion((-0.3, 0.1), (0.05, -0.02), scale=0.2, growth=0.05)
    _, ids = filmed(scene((disc(), motion)), 5)
    for t in range(5):
        distance = pixel_distance(-0.3 + 0.05 * t, 0.1 - 0.02 * t)
        radius = 0.2 * np.exp(0.05 * t)
        # OpenCV draws outlines about two thirds of a pixel fat, for the image and for the ids alike.
        assert (ids[t] == 2)[distance < radius].all()
        assert (ids[t] == 1)[distance > radius + 1.5 / SIZE[0]].all()
        assert (ids[t] == 1).sum() + (ids[t] == 2).sum() == ids[t].size


def test_the_camera_moves_everything_the_other_way():
    _, ids = filmed(scene((disc(), Motion(scale=0.2)), camera=Motion(velocity=(0.1, 0))), 3)
    centres = [np.argwhere(one == 2).mean(0)[1] for one in ids]
    np.testing.assert_allclose(np.diff(centres), -0.1 * SIZE[0], atol=0.3)


def test_holes_show_what_is_behind_and_the_nearer_one_covers():
    ring, dot = (disc(0.5), Motion(scale=0.3)), (disc(), Motion((0.2, 0), scale=0.1))
    frames, ids = filmed(scene(ring, dot))
    centre = (SIZE[0] // 2, SIZE[1] // 2)
    assert ids[0][centre] == 1
    assert tuple(frames[0][centre]) == (128, 128, 128)
    assert ids[0][centre[0], centre[1] + round(0.2 * SIZE[0])] == 3
    _, swapped = filmed(scene(dot, ring))
    assert swapped[0][centre[0], centre[1] + round(0.2 * SIZE[0])] == 3  # now the ring


def test_edges_are_blended_and_belong_to_whom_covers_half():
    frames, ids = filmed(scene((disc(), Motion(scale=0.3))))
    value = frames[0][..., 0].astype(int)
    edge = (value > 130) & (value < 250) & (value != 191)  # 191 is what 127 and 128 of 255 both come to
    assert edge.any()
    np.testing.assert_array_equal(ids[0][edge] == 2, value[edge] > 191)


def test_a_sliver_is_left_out():
    frames, ids = filmed(scene((disc(), Motion(scale=0.5 / SIZE[0]))))
    assert (ids == 1).all()
    assert (frames == 128).all()
    assert (filmed(scene((disc(), Motion(scale=3 / SIZE[0]))))[1] == 2).any()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_an_inside(family):
    for seed in range(5):
        shape = random_shape(np.random.default_rng(seed), family)
        _, ids = filmed(scene((shape, Motion(scale=0.3))))
        area = (ids == 2).sum() / (0.6 * SIZE[0]) ** 2
        assert 0.1 < area < 1.0


def test_random_videos_hold_what_they_should():
    births = departures = 0
    for seed in range(16):
        frames, ids, categories = render_video(seed, 8, SIZE)
        assert frames.shape == (8, *SIZE, 3)
        assert ids.dtype == np.int32
        assert ids.min() >= 1
        assert set(np.unique(ids).tolist()) <= set(categories)
        kinds = [CATEGORIES[category]["isthing"] for category in categories.values()]
        assert 3 <= sum(kinds) <= 12
        stuff = [category for category in categories.values() if not CATEGORIES[category]["isthing"]]
        assert 2 <= len(stuff) <= 4
        assert len(set(stuff)) == len(stuff)
        areas = np.stack([np.bincount(one.ravel(), minlength=len(categories) + 1) for one in ids])[:, 1:]
        assert (areas[areas > 0] >= MIN_VISIBLE * SIZE[0] * SIZE[1]).all()
        births += ((areas[0] == 0) & (areas[-1] > 0)).sum()
        departures += ((areas[0] > 0) & (areas[-1] == 0)).sum()
        assert (np.abs(np.diff(frames.astype(int), axis=0)).mean((1, 2, 3)) > 0.1).all()
    assert births >= 5
    assert departures >= 5


def test_a_video_is_a_function_of_its_seed():
    one, two, other = render_video((5, 1), 2, SIZE), render_video((5, 1), 2, SIZE), render_video((5, 2), 2, SIZE)
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[1], two[1])
    assert (one[0] != other[0]).any()


def test_photographs_come_with_the_wheel():
    files = {str(file) for file in importlib.metadata.files("scikit-image")}
    used = {*PHOTOGRAPHS, BACKGROUND, *(actor.photograph for actor in ACTORS)}
    assert {f"skimage/data/{name}" for name in used} <= files


def test_the_demo_clip_shows_what_it_promises():
    frames, ids = demo_clip()
    assert frames.shape == (24, 270, 480, 3)
    area = np.array([np.bincount(one.ravel(), minlength=6) for one in ids]).T
    assert (area[1] > 0.3 * 270 * 480).all()  # the launch pad
    assert area[2, 0] > 0
    assert area[2, -1] == 0
    assert area[3].min() < 0.6 * area[3].max()  # the cup goes behind the astronaut
    assert (area[4] > 0).all()
    assert area[5, 0] > 0
    assert area[5].min() == 0
    assert area[5, -1] > 0
    np.testing.assert_array_equal(demo_clip()[1], ids)
    short = demo_clip(6)[0]
    assert short.shape == (6, 270, 480, 3)
    np.testing.assert_array_equal(short[-1], frames[-1])


PLAN = SyntheticSet(3, 1, train_videos=2, train_frames=3, val_videos=1, val_frames=2, video_size=(48, 80))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("synthetic")
    done = []
    write_synthetic(root, PLAN, progress=done.append)
    assert done == list(range(1, len(PLAN) + 1))
    return root


def contents(root):
    return {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_workers_and_counts_do_not_change_an_item(written, tmp_path):
    write_synthetic(tmp_path / "b", PLAN, workers=2)
    assert contents(written) == contents(tmp_path / "b")
    write_synthetic(tmp_path / "c", SyntheticSet(1, 0, train_videos=0, val_videos=0))
    image = "train2017/000000000000.jpg"
    assert (tmp_path / "c" / image).read_bytes() == (written / image).read_bytes()
    write_synthetic(tmp_path / "d", SyntheticSet(1, 0, train_videos=0, val_videos=0, seed=1))
    assert (tmp_path / "d" / image).read_bytes() != (written / image).read_bytes()


def test_images_are_read_as_coco(written):
    assert check_coco(written, "train2017").problems == []
    assert check_coco(written, "val2017").checked == 1
    sample = CocoPanoptic(written, "train2017").load(2)
    assert all(256 <= side <= 320 for side in sample.ids.shape)
    assert sample.ids.min() == 1


def test_video_files_agree_with_their_index_and_the_scene(written):
    root = written / "VIPSeg_720P"
    index = json.loads((root / "panoptic_gt_VIPSeg_train.json").read_text())
    assert [video["video_id"] for video in index["videos"]] == ["train_00000", "train_00001"]
    for number, (video, annotation) in enumerate(zip(index["videos"], index["annotations"])):
        _, ids, categories = render_video((0, 2, number), 3, (48, 80))
        assert annotation["video_id"] == video["video_id"]
        assert len(annotation["annotations"]) == len(video["images"]) == 3
        for time, frame in enumerate(annotation["annotations"]):
            png = read_id_map(root / "panomasksRGB" / video["video_id"] / frame["file_name"])
            np.testing.assert_array_equal(png, ids[time])
            assert [segment["id"] for segment in frame["segments_info"]] == np.unique(png).tolist()
            for segment in frame["segments_info"]:
                rows, columns = np.nonzero(png == segment["id"])
                x, y, width, height = segment["bbox"]
                assert segment["area"] == len(rows)
                assert (x, y) == (columns.min(), rows.min())
                assert (x + width - 1, y + height - 1) == (columns.max(), rows.max())
                assert segment["category_id"] == categories[segment["id"]]
    assert len(PanopticVideos(root, "val", num_frames=2)) == 1


def test_a_broken_off_run_leaves_no_index(written, tmp_path, monkeypatch):
    write_synthetic(tmp_path, PLAN)
    monkeypatch.setattr("entitysam.data.synthetic.writer.render_video", lambda *_: (_ for _ in ()).throw(OSError))
    with pytest.raises(OSError):
        write_synthetic(tmp_path, PLAN)
    assert not (tmp_path / "annotations/panoptic_train2017.json").exists()
