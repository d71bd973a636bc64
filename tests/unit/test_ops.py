"""Mask operations against SciPy, pycocotools and loops."""

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from scipy import ndimage

from entitysam import ops


def naive_fill(logits, max_area):
    filled = logits.copy()
    labels, count = ndimage.label(logits <= 0, structure=np.ones((3, 3)))
    for label in range(1, count + 1):
        if (labels == label).sum() <= max_area:
            filled[labels == label] = 0.1
    return filled


@pytest.mark.parametrize("max_area", [0, 1, 3, 8, 10_000])
def test_holes_equal_connected_components(max_area):
    logits = np.random.default_rng(0).normal(0.6, 1, (2, 3, 24, 31)).astype(np.float32)
    logits[0, 0] = 1  # nothing to fill
    logits[0, 1] = -1  # nothing but a hole
    expected = np.stack([[naive_fill(mask, max_area) for mask in masks] for masks in logits])
    given = torch.from_numpy(logits.copy())
    np.testing.assert_array_equal(ops.fill_holes(given, max_area), expected)
    np.testing.assert_array_equal(given, logits)  # left as it was


def test_holes_touching_at_a_corner_are_one():
    logits = torch.ones(4, 4)
    logits[0, 0] = logits[1, 1] = 0.0  # 0 is background
    assert torch.equal(ops.fill_holes(logits, 1), logits)
    assert (ops.fill_holes(logits, 2, value=0.5)[[0, 1], [0, 1]] == 0.5).all()


@pytest.mark.parametrize("share", [0.03, 0.3, 0.5, 0.8])
def test_small_regions_by_tensor_operations_equal_connected_components(share):
    """What is used where OpenCV would need a copy on the host."""
    rng = np.random.default_rng(3)
    maps = rng.random((6, 37, 53)) < share
    maps[0], maps[1] = False, True
    for max_area in (1, 2, 8, 20):
        expected = np.zeros_like(maps)
        for given, small in zip(maps, expected):
            labels, count = ndimage.label(given, structure=np.ones((3, 3)))
            areas = np.bincount(labels.ravel(), minlength=count + 1)
            small[:] = given & (areas[labels] <= max_area)
        np.testing.assert_array_equal(ops.small_regions(torch.from_numpy(maps), max_area).numpy(), expected)


def test_long_thin_holes_are_filled_whole():
    logits = torch.ones(1, 20, 20)
    logits[0, 3, 2:10] = -1.0  # 8 cells in a row
    logits[0, range(8, 17), range(8, 17)] = -1.0  # 9 cells on a diagonal
    expected = ops.fill_holes(logits, 8) > 0
    assert expected[0, 3].all()
    assert not expected[0, 12, 12]
    assert torch.equal(~expected, (logits <= 0) & ~ops.small_regions(logits <= 0, 8))


def test_holes_off_the_cpu_need_no_copy():
    assert ops.fill_holes(torch.zeros(2, 3, 8, 8, device="meta"), 8).shape == (2, 3, 8, 8)


def test_holes_keep_dtype():
    assert ops.fill_holes(torch.randn(2, 8, 8).bfloat16()).dtype is torch.bfloat16


def test_mask_iou():
    masks = torch.rand(5, 4, 6, generator=torch.Generator().manual_seed(0)) > 0.5
    masks[4] = False
    iou = ops.mask_iou(masks, masks[2:])
    for i, a in enumerate(masks):
        for j, b in enumerate(masks[2:]):
            union = (a | b).sum().item()
            assert iou[i, j] == pytest.approx((a & b).sum().item() / union if union else 0.0)


def test_point_sample_takes_outer_borders_as_0_and_1():
    maps = torch.arange(8.0).view(1, 1, 2, 4)
    centres = torch.tensor([[[(x + 0.5) / 4, (y + 0.5) / 2] for y in range(2) for x in range(4)]])
    torch.testing.assert_close(ops.point_sample(maps, centres), maps.flatten(2))
    between = torch.tensor([[[0.5, 0.5]]])
    assert ops.point_sample(maps, between).item() == pytest.approx((1 + 2 + 5 + 6) / 4)
    assert ops.point_sample(maps, torch.tensor([[[0.95, 0.1]]]), mode="nearest").item() == 3


def test_boxes_are_those_of_coco():
    masks = np.random.default_rng(1).random((20, 9, 7)) > 0.9
    for mask in masks:
        expected = coco_mask.toBbox(coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))))
        assert ops.mask_to_box(mask) == expected.astype(int).tolist()
    assert ops.mask_to_box(np.zeros((3, 3), bool)) == [0, 0, 0, 0]


def test_run_lengths_there_and_back():
    mask = np.random.default_rng(2).random((11, 5)) > 0.4
    rle = ops.rle_encode(mask)
    assert isinstance(rle["counts"], str)
    np.testing.assert_array_equal(ops.rle_decode(rle), mask)
    uncompressed = {"size": [2, 3], "counts": [1, 2, 3]}  # columns first
    np.testing.assert_array_equal(ops.rle_decode(uncompressed), np.array([[0, 1, 0], [1, 0, 0]], bool))


def test_ids_as_colours_there_and_back():
    ids = np.array([[0, 1, 255], [256, 65536, 2**24 - 1]], np.int32)
    rgb = ops.ids_to_rgb(ids)
    assert rgb.dtype == np.uint8
    assert rgb[1].tolist() == [[0, 1, 0], [0, 0, 1], [255, 255, 255]]
    np.testing.assert_array_equal(ops.rgb_to_ids(rgb), ids)
