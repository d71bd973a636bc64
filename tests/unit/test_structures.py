"""Training targets as id maps: compact on the way to the device, expanded to masks there."""

import pytest
import torch

from entitysam.structures import Clip, TargetMaps, Targets


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_target_maps_expand_to_masks(dtype):
    ids = torch.tensor([[[0, 1], [2, 2]], [[3, 0], [0, 1]]], dtype=dtype)
    targets = TargetMaps(ids, torch.tensor([7, 8, 9]))
    assert len(targets) == 3
    expanded = targets.to("cpu")
    assert isinstance(expanded, Targets)
    assert expanded.masks.dtype is torch.bool
    assert expanded.masks.int().tolist() == [
        [[[0, 1], [0, 0]], [[0, 0], [0, 1]]],
        [[[0, 0], [1, 1]], [[0, 0], [0, 0]]],
        [[[0, 0], [0, 0]], [[1, 0], [0, 0]]],
    ]
    assert expanded.categories.tolist() == [7, 8, 9]


def test_id_255_fits_a_byte_and_no_targets_expand_to_none():
    ids = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    masks = TargetMaps(ids, torch.zeros(255, dtype=torch.int64)).masks
    assert (masks.flatten(1).sum(1) == 1).all()
    assert TargetMaps(ids, torch.zeros(0, dtype=torch.int64)).to("cpu").masks.shape == (0, 1, 16, 16)


def test_maps_cross_to_the_device_before_they_are_expanded():
    maps = TargetMaps(torch.ones(8, 64, 64, dtype=torch.uint8), torch.zeros(30, dtype=torch.int64))
    clip = Clip(torch.zeros(8, 3, 64, 64, dtype=torch.uint8), maps, "image.jpg")
    assert clip.targets.ids.nbytes == 8 * 64 * 64
    moved = clip.to("meta").targets
    assert (moved.masks.device.type, moved.masks.nbytes) == ("meta", 30 * 8 * 64 * 64)
