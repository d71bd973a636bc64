"""Pairs of views: boxes follow the pixels, rows are instances, and everything is a function of the generator."""

import cv2
import numpy as np
import pytest
import torch

from entitysam.data.images import DataError
from entitysam.data.training.convex_hulls import box_outline, clipped_box, mask_outline, warped
from entitysam.data.training.loader import ClipStream
from entitysam.data.training.photometric import PHOTOMETRIC, hsv_jitter
from entitysam.data.training.samples import ImageSample, OutlineSample, VideoSample
from entitysam.data.training.two_views import PADDING, TwoViews, view_boxes, warp_image
from entitysam.data.training.view_geometry import ViewRanges, draw_view
from entitysam.registry import ConfigError


def blobs(height: int = 90, width: int = 120) -> ImageSample:
    """Convex shapes on black: the first is red, the second green, the third blue."""
    ids = np.zeros((height, width), np.int32)
    cv2.circle(ids, (30, 30), 15, 1, -1)
    cv2.rectangle(ids, (60, 40), (100, 60), 2, -1)
    cv2.fillConvexPoly(ids, np.array([[20, 60], [50, 65], [25, 85]]), 3)
    image = np.zeros((height, width, 3), np.uint8)
    for number in (1, 2, 3):
        image[ids == number, number - 1] = 200
    return ImageSample(image, ids, {1: 1, 2: 1, 3: 1}, "blobs.png")


def box_of(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(mask)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def test_hull_of_a_mask():
    mask = np.zeros((6, 8), bool)
    mask[2:4, 3:7] = True
    outline = mask_outline(mask)
    assert outline.min(0).tolist() == [3, 2]
    assert outline.max(0).tolist() == [7, 4]
    assert len(outline) == 4
    assert mask_outline(np.zeros((3, 3), bool)).shape == (0, 2)


def test_box_of_a_rotated_mask_is_that_of_its_hull():
    sample, turn = blobs(), np.array([[0.8, -0.6, 30], [0.6, 0.8, 5]])
    for number in (1, 2, 3):
        mask = (sample.ids == number).astype(np.uint8)
        seen = box_of(warp_image(np.repeat(mask[..., None] * 255, 3, 2), turn, 160)[..., 0] == 255)
        found = clipped_box(warped(mask_outline(mask), turn), np.array([0, 0, 160, 160]))
        assert np.abs(found - seen).max() < 2


def test_clipping():
    diamond = np.array([[5, 0], [10, 5], [5, 10], [0, 5]], np.float32)
    assert clipped_box(diamond, np.array([0, 0, 20, 20])).tolist() == [0, 0, 10, 10]
    np.testing.assert_allclose(clipped_box(diamond, np.array([8, 0, 20, 20])), [8, 3, 10, 7], atol=1e-4)
    assert clipped_box(diamond, np.array([11, 0, 20, 20])).tolist() == [0, 0, 0, 0]
    assert clipped_box(box_outline(np.array([2, 3, 4, 5])), np.array([0, 0, 9, 9])).tolist() == [2, 3, 4, 5]


@pytest.mark.parametrize("seed", range(12))
def test_boxes_follow_the_pixels_in_every_view(seed):
    """Instances are found again by their colour in the warped image, whatever was drawn."""
    sample, rng = blobs(), np.random.default_rng(seed)
    outlines = [mask_outline(sample.ids == number) for number in (1, 2, 3)]
    view = draw_view(rng, (90, 120), None, 200, ViewRanges(jitter=(0.5, 1.6)))
    boxes = view_boxes(OutlineSample(sample.image, outlines, ""), None, view)
    clip = TwoViews(200, hsv=0, mixup=0)
    pixels = clip._pixels(OutlineSample(sample.image, outlines, ""), None, view, rng)
    for number, box in zip((1, 2, 3), boxes):
        if (box[2:] - box[:2]).min() < 6:
            continue  # too small to be found by colour
        seen = (pixels[..., number - 1] > 100) & (np.delete(pixels, number - 1, axis=2) < 60).all(-1)
        assert np.abs(box_of(seen) - box).max() < 3, number


def test_rows_are_instances_in_both_views():
    mapper = TwoViews(128, mixup=0)
    for seed in range(10):
        clip = mapper(blobs(), np.random.default_rng(seed))
        boxes, visible = clip.targets.boxes, clip.targets.visible
        assert boxes.shape == (len(visible), 2, 4)
        assert visible.any(1).all()
        assert (boxes[~visible] == 0).all()
        assert (boxes >= 0).all()
        assert (boxes <= 128).all()
        sides = boxes[visible]
        assert (sides[:, 2:] - sides[:, :2] > 1).all()


def test_a_clip_is_a_function_of_the_generator():
    mapper, partner = TwoViews(96, photometric=0.5), blobs(60, 60)
    first, second = (mapper(blobs(), np.random.default_rng(5), partner) for _ in range(2))
    assert torch.equal(first.frames, second.frames)
    assert torch.equal(first.targets.boxes, second.targets.boxes)
    other = mapper(blobs(), np.random.default_rng(6), partner)
    assert not torch.equal(first.frames, other.frames)
    assert not torch.equal(first.frames[0], first.frames[1])


def test_mixup_brings_the_partners_instances_half_transparent():
    black, white = (
        ImageSample(np.full((64, 64, 3), v, np.uint8), np.ones((64, 64), np.int32), {1: 1}, "") for v in (0, 200)
    )
    still = {"rotation": 0, "shear": 0, "translation": 0, "zoom": [1, 1], "jitter": [1, 1], "flip": 0, "hsv": 0}
    clip = TwoViews(64, mixup=1, mixup_zoom=[1, 1], **still)(black, np.random.default_rng(0), white)
    assert len(clip.targets) == 2
    assert clip.targets.boxes.tolist() == [[[0, 0, 64, 64]] * 2] * 2
    assert (clip.frames == 100).all()
    alone = TwoViews(64, mixup=0, **still)(black, np.random.default_rng(0))
    assert len(alone.targets) == 1
    assert (alone.frames == 0).all()


def test_partners_rows_stay_where_only_one_view_is_mixed():
    mapper = TwoViews(96, mixup=0.5)
    seen = set()
    for seed in range(30):
        clip = mapper(blobs(), np.random.default_rng(seed), blobs(50, 70))
        seen.add(len(clip.targets) > 3)
        frames, visible = clip.frames, clip.targets.visible
        assert len(visible) <= 6
        assert frames.dtype == torch.uint8
    assert seen == {True, False}


def test_padding_is_grey():
    clip = TwoViews(128, mixup=0, hsv=0, jitter=[0.25, 0.25], zoom=[1, 1], rotation=0, shear=0, translation=0, flip=0)(
        blobs(), np.random.default_rng(0)
    )
    assert (clip.frames[0, :, 40:, :] == PADDING).all()
    assert (clip.frames[0, 0, 6:8, 6:8] == 200).all()  # inside the red disc


def test_many_instances_are_thinned():
    clip = TwoViews(128, max_targets=2, mixup=0, jitter=[1, 1], zoom=[1, 1], translation=0)(
        blobs(), np.random.default_rng(0)
    )
    assert len(clip.targets) == 2


def test_images_without_instances():
    empty = ImageSample(np.zeros((20, 30, 3), np.uint8), np.zeros((20, 30), np.int32), {}, "empty.png")
    clip = TwoViews(64)(empty, np.random.default_rng(0), empty)
    assert clip.targets.boxes.shape == (0, 2, 4)


def test_the_stream_gives_a_partner_and_stays_a_function_of_seed_and_place():
    class Two:
        def __len__(self):
            return 2

        def load(self, index):
            return [blobs(), blobs(40, 50)][index]

    stream = ClipStream(Two(), TwoViews(64), seed=3)
    again = ClipStream(Two(), TwoViews(64), seed=3)
    for k in (5, 0, 5):
        assert torch.equal(stream[k].frames, again[k].frames)
    assert stream[4].index == 4


def test_videos_are_refused():
    video = VideoSample(np.zeros((2, 8, 8, 3), np.uint8), np.zeros((2, 8, 8), np.int32), {}, "clip/0.png")
    with pytest.raises(DataError, match=r"clip/0\.png: mapper 'two_views' takes images"):
        TwoViews(64)(video, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_size": 0}, "image_size 0"),
        ({"zoom": [0, 1]}, "zoom"),
        ({"jitter": [2, 1]}, "jitter"),
        ({"jitter": [1]}, r"jitter \[1\] must be \[low, high\]"),
        ({"flip": 1.5}, "flip 1.5"),
        ({"rotation": -1}, "must not be negative"),
        ({"hsv": 2}, "hsv 2"),
    ],
)
def test_bad_settings(changes, words):
    with pytest.raises(ConfigError, match=words):
        TwoViews(**changes)


@pytest.mark.parametrize("change", [hsv_jitter, *PHOTOMETRIC], ids=lambda change: change.__name__)
def test_photometric_changes_values_alone(change):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    results = [change(pixels, np.random.default_rng(seed)) for seed in range(4)]
    assert all(one.shape == pixels.shape and one.dtype == np.uint8 for one in results)
    assert any((one != pixels).any() for one in results)
    assert (change(pixels, np.random.default_rng(1)) == results[1]).all()
