"""Packed masks against plain boolean arithmetic."""

import numpy as np
import pytest
import torch

from entitysam.esam import bitmasks
from entitysam.esam.bitmasks import MaskSet, areas, boxes, label_counts, pack, popcount, unpack
from entitysam.esam.suppression import mask_nms, matches_any
from entitysam.ops import mask_iou


def random_masks(count: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Rectangles and noise, some of them empty or full: bool [count, height, width]."""
    random = np.random.default_rng(seed)
    masks = np.zeros((count, height, width), bool)
    for mask in masks[: count - 2]:
        y, x = random.integers(0, height), random.integers(0, width)
        mask[y : y + random.integers(1, height + 1), x : x + random.integers(1, width + 1)] = True
        mask &= random.random(mask.shape) > 0.05
    masks[-1] = True
    return torch.from_numpy(masks)


def mask_set(masks: torch.Tensor, scores: torch.Tensor | None = None) -> MaskSet:
    if scores is None:
        scores = torch.rand(len(masks), generator=torch.Generator().manual_seed(1))
    words = pack(masks)
    return MaskSet(words, masks.shape[-1], scores, torch.zeros(len(masks), 2), areas(words))


@pytest.mark.parametrize("size", [(1, 1), (3, 63), (5, 64), (7, 65), (40, 171)])
def test_packing_is_lossless(size):
    masks = random_masks(9, *size)
    words = pack(masks)
    assert words.shape == (9, size[0], -(-size[1] // 64))
    assert torch.equal(unpack(words, size[1]), masks)
    assert torch.equal(areas(words), masks.sum((1, 2)))


def test_popcount_without_numpy_is_the_same(monkeypatch):
    words = torch.from_numpy(np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 1000))
    expected = torch.tensor([bin(word & (2**64 - 1)).count("1") for word in words.tolist()])
    assert torch.equal(popcount(words), expected)
    monkeypatch.delattr(bitmasks.np, "bitwise_count", raising=False)
    assert torch.equal(popcount(words), expected)


def test_boxes_are_the_smallest():
    masks = random_masks(30, 20, 70)
    for mask, box in zip(masks, boxes(pack(masks), 70).tolist()):
        rows, columns = mask.nonzero(as_tuple=True)
        expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else [0, 0, 0, 0]
        assert box == [int(value) for value in expected]


def test_label_counts_count_cells():
    masks = random_masks(20, 17, 80)
    labels = torch.randint(0, 6, (17, 80), generator=torch.Generator().manual_seed(0))
    expected = torch.stack([(masks & (labels == label)).sum((1, 2)) for label in range(6)], 1)
    assert torch.equal(label_counts(mask_set(masks), labels, 6), expected.float())


@pytest.mark.parametrize("per_mask", [False, True])
def test_nms_equals_the_textbook(per_mask):
    masks = random_masks(120, 24, 70, seed=3)
    scores = torch.rand(120, generator=torch.Generator().manual_seed(2)).mul(20).round() / 20  # with ties
    thresholds = torch.linspace(0.2, 0.9, 120) if per_mask else torch.full((120,), 0.4)
    kept, representative = mask_nms(mask_set(masks, scores), thresholds if per_mask else 0.4)

    iou = mask_iou(masks, masks)
    expected, owner = [], {}
    for i in scores.argsort(descending=True, stable=True).tolist():
        if i in owner or not masks[i].any():
            continue
        owner[i] = len(expected)
        for j in range(120):
            if j not in owner and masks[j].any() and iou[i, j] > thresholds[i]:
                owner[j] = len(expected)
        expected.append(i)
    assert kept.tolist() == expected
    assert representative.tolist() == [owner.get(i, -1) for i in range(120)]
    assert 10 < len(expected) < 110


def test_matches_any_equals_all_pairs():
    masks, others = random_masks(60, 24, 70, seed=5), random_masks(60, 24, 70, seed=6)
    expected = (mask_iou(masks, others) >= 0.5).any(1)
    assert 0 < expected.sum() < 60
    assert torch.equal(matches_any(mask_set(masks), mask_set(others), 0.5), expected)


def test_no_masks_at_all():
    empty = mask_set(torch.zeros(0, 5, 9, dtype=torch.bool))
    kept, representative = mask_nms(empty, 0.5)
    assert len(kept) == len(representative) == 0
    assert matches_any(empty, empty, 0.5).shape == (0,)
    assert label_counts(empty, torch.zeros(5, 9, dtype=torch.int64), 3).shape == (0, 3)
    assert boxes(empty.words, 9).shape == (0, 4)
