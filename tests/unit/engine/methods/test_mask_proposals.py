"""Mask proposals: cleaned, written as COCO instances, and read with their overlaps."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from entitysam.data.images import DataError
from entitysam.data.training.proposals import Proposals
from entitysam.engine.methods.mask_proposals import write_proposals
from entitysam.esam.everything import clean, everything


class Discs:
    """A segmenter that gives three discs around the nearest of two centres for every point."""

    def encode(self, image):
        return _Discs(image.shape[1:])


class _Discs:
    def __init__(self, size):
        self.size, self.mask_size = size, (size[0] // 2, size[1] // 2)
        self.features = torch.zeros(1, 2, 2)

    def predict(self, points):
        centres = torch.tensor([[30.0, 30], [90, 40]])
        nearest = centres[torch.cdist(points, centres).argmin(1)]
        y, x = torch.meshgrid(torch.arange(self.mask_size[0]), torch.arange(self.mask_size[1]), indexing="ij")
        away = ((x * 2 + 1 - nearest[:, 0, None, None]) ** 2 + (y * 2 + 1 - nearest[:, 1, None, None]) ** 2).sqrt()
        logits = (torch.tensor([24.0, 16, 9])[:, None, None] - away[:, None]) * 20
        return logits, torch.tensor([0.97, 0.92, 0.5]).expand(len(points), 3)


def test_everything_keeps_parts_and_drops_duplicates():
    masks, scores = everything(Discs(), np.zeros((80, 128, 3), np.uint8))
    assert len(masks) == 4  # two discs around each centre; the third is not good enough
    assert scores == sorted(scores, reverse=True)
    assert [round(np.sqrt(mask.sum() / np.pi)) for mask in masks] == [24, 24, 16, 16]
    assert all(mask.shape == (80, 128) for mask in masks)


def test_small_regions_and_holes_are_removed():
    mask = np.zeros((60, 60), bool)
    mask[10:40, 10:40] = True
    whole = mask.copy()
    mask[20:23, 20:23] = False
    mask[50:53, 50:53] = True
    assert (clean(mask, 100) == whole).all()
    small = np.zeros((20, 20), bool)
    small[:3, :3], small[10:12, 10:12] = True, True
    assert clean(small, 100).sum() == 9  # the largest stays
    assert not clean(np.zeros((5, 5), bool), 10).any()


@pytest.fixture
def images(tmp_path):
    for name in ("a.png", "deep/b.png", "c.jpg"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(path)
    return tmp_path / "images"


def two_masks(pixels):
    outer, inner = np.zeros(pixels.shape[:2], bool), np.zeros(pixels.shape[:2], bool)
    outer[5:35, 5:45], inner[10:20, 10:20] = True, True
    return [outer, inner], [0.95, 0.9]


def test_written_and_read_with_overlaps(images, tmp_path):
    assert write_proposals(two_masks, images, tmp_path / "out") == 6
    dataset = Proposals(tmp_path / "out")
    assert len(dataset) == 3
    sample = dataset.load(2)
    assert sample.source.endswith("deep/b.png")
    assert [(*outline.min(0), *outline.max(0)) for outline in sample.outlines] == [(5, 5, 45, 35), (10, 10, 20, 20)]


def test_a_stopped_run_is_resumed(images, tmp_path):
    seen = []

    def stops(pixels):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(1)
        return two_masks(pixels)

    with pytest.raises(KeyboardInterrupt):
        write_proposals(stops, images, tmp_path / "out")
    partial = tmp_path / "out/annotations/instances_train.partial.jsonl"
    partial.write_text(partial.read_text() + '{"torn')
    calls = []
    write_proposals(lambda pixels: calls.append(1) or two_masks(pixels), images, tmp_path / "out")
    assert len(calls) == 1
    assert len(json.loads((tmp_path / "out/annotations/instances_train.json").read_text())["annotations"]) == 6
    assert not partial.exists()


def test_folders_that_cannot_be_used(images, tmp_path):
    with pytest.raises(DataError, match="no images in it"):
        write_proposals(two_masks, tmp_path / "nothing", tmp_path / "out")
    (tmp_path / "out/train").mkdir(parents=True)
    with pytest.raises(DataError, match="exists already and leads to"):
        write_proposals(two_masks, images, tmp_path / "out")
