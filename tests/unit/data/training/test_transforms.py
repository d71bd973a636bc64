"""The augmentation: what is drawn, and where pixels go, against the steps done one after another by hand."""

import numpy as np
import pytest

from entitysam.data.training.transforms import (
    Augmentation,
    AugmentationRanges,
    crop_offsets,
    draw_augmentation,
    frame_affines,
    resized_shape,
    shrink,
    still_augmentation,
    warp_frame,
)
from entitysam.registry import ConfigError

RANGES = AugmentationRanges()


def draws(count, num_frames=5, ranges=RANGES):
    return [draw_augmentation(np.random.default_rng(seed), num_frames, ranges) for seed in range(count)]


def close_to_uniform(values, low, high):
    """Whether the largest gap between the empirical and the uniform distribution is one a fair sample would show."""
    values = (np.sort(values) - low) / (high - low)
    assert values[0] >= 0
    assert values[-1] <= 1
    return np.abs(values - (np.arange(len(values)) + 0.5) / len(values)).max() < 1.63 / np.sqrt(len(values))


def test_drawn_numbers_have_the_stated_distributions():
    many = draws(2000)
    assert abs(np.mean([one.flip for one in many]) - 0.5) < 0.05
    assert close_to_uniform([one.scale for one in many], 0.25, 4.0)
    assert close_to_uniform([one.crop for one in many], 0, 1)
    assert close_to_uniform([one.centre[0] for one in many], 0.4, 0.6)
    assert close_to_uniform([one.centre[1] for one in many], 0.4, 0.6)
    assert close_to_uniform(np.concatenate([one.angles for one in many]), -15, 15)
    assert close_to_uniform(np.concatenate([one.shifts[1:].ravel() for one in many]), -1, 1)
    assert all((one.shifts[0] == 0).all() for one in many)


def test_a_clip_turns_one_way_and_either_way_is_as_likely():
    rising = 0
    for one in draws(1000):
        steps = np.diff(one.angles)
        assert (steps >= 0).all() or (steps <= 0).all()
        rising += steps[0] > 0
    assert 430 < rising < 570


def test_draws_repeat_by_seed_and_ranges_are_kept():
    ranges = AugmentationRanges(flip_probability=0.0, angle=3.0, centre=(0.1, 0.2), scale=(1.0, 1.5), shift=0.0)
    for seed in range(50):
        one = draw_augmentation(np.random.default_rng(seed), 3, ranges)
        two = draw_augmentation(np.random.default_rng(seed), 3, ranges)
        assert not one.flip
        assert np.abs(one.angles).max() <= 3
        assert 1.0 <= one.scale <= 1.5
        np.testing.assert_array_equal(one.angles, two.angles)
        np.testing.assert_array_equal(one.shifts, two.shifts)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flip_probability": 1.5}, "flip_probability 1.5"),
        ({"scale": (0.0, 1.0)}, "scale"),
        ({"scale": (2.0, 1.0)}, "scale"),
        ({"angle": -1.0}, "angle -1.0"),
        ({"shift": -0.1}, "shift -0.1"),
    ],
)
def test_impossible_ranges(changes, message):
    with pytest.raises(ConfigError, match=message):
        AugmentationRanges(**changes)


@pytest.mark.parametrize(("height", "width", "scale"), [(480, 640, 1.0), (640, 427, 0.25), (100, 1000, 4.0)])
def test_an_image_fits_into_the_scaled_box(height, width, scale):
    resized = resized_shape(height, width, 256, scale)
    assert max(resized) == round(256 * scale)
    assert abs(resized[0] / resized[1] - height / width) < 1 / min(resized)


def test_crops_stay_inside_and_shift_by_at_most_a_tenth():
    moved = 0
    for one in draws(200):
        resized = resized_shape(480, 640, 256, one.scale)
        offsets = crop_offsets(one, resized, 256, 0.1)
        room = np.maximum([resized[1] - 256, resized[0] - 256], 0)
        assert (offsets >= 0).all()
        assert (offsets <= room).all()
        np.testing.assert_array_equal(offsets[0], np.round(one.crop * room))
        assert np.abs(offsets - offsets[0]).max() <= 25
        moved += np.abs(offsets - offsets[0]).max() > 0
    assert moved > 100


def by_hand(ids, augmentation, frame, size, shift):
    """Output pixel by output pixel, back through crop, resize, rotation and flip; and how near a tie each was."""
    height, width = ids.shape
    resized = resized_shape(height, width, size, augmentation.scale)
    left, top = crop_offsets(augmentation, resized, size, shift)[frame]
    y, x = np.mgrid[:size, :size] + 0.5
    x, y = x + left, y + top
    on_canvas = (x < resized[1]) & (y < resized[0])
    x, y = x * width / resized[1], y * height / resized[0]
    angle = np.deg2rad(augmentation.angles[frame])
    cx, cy = augmentation.centre * (width, height)
    # Turning the image counter-clockwise (y points down) means looking it up clockwise.
    dx, dy = x - cx, y - cy
    x, y = cx + dx * np.cos(angle) - dy * np.sin(angle), cy + dx * np.sin(angle) + dy * np.cos(angle)
    if augmentation.flip:
        x = width - x
    near_tie = np.minimum(np.abs(x - np.round(x)), np.abs(y - np.round(y))) < 0.02
    column, row = np.floor(x).astype(int), np.floor(y).astype(int)
    inside = on_canvas & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return np.where(inside, ids[row.clip(0, height - 1), column.clip(0, width - 1)], 0), inside, near_tie


@pytest.mark.parametrize("seed", range(12))
def test_the_composed_warp_is_the_steps_one_by_one(seed):
    rng = np.random.default_rng(seed)
    height, width = (int(n) for n in rng.integers(60, 200, 2))
    ids = rng.integers(0, 400 if seed % 2 else 200, (height, width)).astype(np.int32)
    image = np.full((height, width, 3), 200, np.uint8)
    augmentation = draw_augmentation(rng, 3, RANGES)
    affines, resized = frame_affines(augmentation, height, width, 128, RANGES.shift)
    small, to_original = shrink(image, resized)
    for frame in range(3):
        expected, inside, near_tie = by_hand(ids, augmentation, frame, 128, RANGES.shift)
        pixels, warped = warp_frame(small, to_original, ids, affines[frame], resized, 128)
        different = warped != expected
        assert not (different & ~near_tie).any()
        assert different.mean() < 0.02
        np.testing.assert_array_equal((pixels == 200).all(-1)[~near_tie], inside[~near_tie])
        np.testing.assert_array_equal((pixels == 0).all(-1)[~near_tie], ~inside[~near_tie])


def test_image_and_ids_stay_together():
    """Paints each id's colour as the image: away from borders between ids, the warped colours are those of the ids."""
    ids = np.kron(np.arange(1, 13).reshape(3, 4), np.ones((40, 40), int)).astype(np.int32)
    image = np.repeat((ids * 20).astype(np.uint8)[..., None], 3, axis=2)
    for seed in range(8):
        augmentation = draw_augmentation(np.random.default_rng(seed), 4, RANGES)
        affines, resized = frame_affines(augmentation, *ids.shape, 96, RANGES.shift)
        small, to_original = shrink(image, resized)
        for affine in affines:
            pixels, warped = warp_frame(small, to_original, ids, affine, resized, 96)
            assert (np.abs(pixels[..., 0].astype(int) - warped.astype(int) * 20) > 2).mean() < 0.12
            assert (pixels.any(-1) == (warped > 0)).all()


def test_without_a_change_pixels_are_copied_and_padded_right_and_below():
    image = np.random.default_rng(0).integers(1, 255, (40, 64, 3), np.uint8)
    ids = np.arange(40 * 64).reshape(40, 64).astype(np.int32) % 999
    affines, resized = frame_affines(still_augmentation(1), 40, 64, 64, 0.1)
    assert resized == (40, 64)
    pixels, warped = warp_frame(*shrink(image, resized), ids, affines[0], resized, 64)
    np.testing.assert_array_equal(pixels[:40], image)
    np.testing.assert_array_equal(warped[:40], ids)
    assert not pixels[40:].any()
    assert not warped[40:].any()


def test_a_flip_alone_mirrors():
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    flip = Augmentation(True, np.zeros(1), np.full(2, 0.5), 1.0, 0.0, np.zeros((1, 2)))
    affines, resized = frame_affines(flip, 64, 64, 64, 0.1)
    pixels, warped = warp_frame(*shrink(image, resized), image[..., 0].astype(np.int32), affines[0], resized, 64)
    np.testing.assert_array_equal(pixels, image[:, ::-1])
    np.testing.assert_array_equal(warped, image[:, ::-1, 0])


def test_positive_angles_turn_counter_clockwise():
    ids = np.zeros((64, 64), np.int32)
    ids[30:34, 50:60] = 1  # to the right of the centre
    turn = Augmentation(False, np.array([15.0]), np.full(2, 0.5), 1.0, 0.0, np.zeros((1, 2)))
    affines, resized = frame_affines(turn, 64, 64, 64, 0.1)
    _, warped = warp_frame(np.zeros((64, 64, 3), np.uint8), np.eye(3), ids, affines[0], resized, 64)
    assert np.flatnonzero(warped.any(1)).mean() < 28  # higher up


def test_shrinking_averages():
    """A fine checkerboard becomes grey; looked up without averaging it would stay black and white."""
    board = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    image = np.repeat(board[..., None], 3, axis=2)
    affines, resized = frame_affines(still_augmentation(1), 256, 256, 64, 0.1)
    pixels, _ = warp_frame(*shrink(image, resized), np.ones((256, 256), np.int32), affines[0], resized, 64)
    assert np.abs(pixels.astype(int) - 127).max() <= 1
