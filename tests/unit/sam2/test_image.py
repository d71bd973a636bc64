"""SAM 2.1 on images: the masks of a click are those of a session, and E-SAM runs on them."""

import numpy as np
import pytest
import torch
from support.small_sam2 import small_sam2

from entitysam.engine.build.promptable import sam2_segmenter
from entitysam.errors import CheckpointError, ConfigError
from entitysam.esam.prompting import PromptingConfig
from entitysam.esam.segmenter import ESAM
from entitysam.esam.settings import method_from_options
from entitysam.sam2.image import SAM2Segmenter
from entitysam.sam2.session import PromptedSession


@pytest.fixture(scope="module")
def model():
    return small_sam2()


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)


def test_the_best_mask_of_a_click_is_that_of_a_session(model, image):
    """At the network's own size the resizing filters, which differ, do nothing."""
    encoded = SAM2Segmenter(model).encode(torch.from_numpy(image).permute(2, 0, 1))
    points = torch.tensor([[20.0, 12.0], [50.5, 40.0], [3.0, 63.0]])
    logits, scores = encoded.predict(points)
    assert logits.shape == (3, 3, *encoded.mask_size)
    assert encoded.features.shape == (32, 4, 4)
    for row, point in enumerate(points):
        session = PromptedSession(model, [image], fill_hole_area=0)
        session.add_points(0, 1, point[None], [1])
        found = session.objects[1].at(0)
        best = scores[row].argmax()
        torch.testing.assert_close(logits[row, best], found.mask_logits, rtol=1e-4, atol=1e-4)
        assert float(scores[row, best]) == pytest.approx(found.iou, abs=1e-5)


def test_points_are_pixels_of_the_image_whatever_its_shape(model, image):
    wide = np.repeat(image, 2, axis=1)  # 64 x 128
    encoded = SAM2Segmenter(model).encode(torch.from_numpy(wide).permute(2, 0, 1))
    square = SAM2Segmenter(model).encode(torch.from_numpy(image).permute(2, 0, 1))
    moved, _ = encoded.predict(torch.tensor([[40.0, 12.0]]))
    same, _ = square.predict(torch.tensor([[20.0, 12.0]]))
    assert torch.nn.functional.cosine_similarity(moved.flatten(), same.flatten(), dim=0) > 0.99


def test_esam_runs_on_it(model, image):
    settings = PromptingConfig(points_per_side=4, gallery_points_per_side=5, min_score=-1.0, min_stability=0.0)
    found = ESAM(SAM2Segmenter(model), settings).segment(np.repeat(image, 2, axis=0))
    assert found.ids.shape == (128, 64)
    assert set(np.unique(found.ids)) - {0} == set(range(1, len(found.scores) + 1))


def test_weights_and_options(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"put sam2\.1_hiera_base_plus\.pt of its release into checkpoints/"):
        sam2_segmenter("sam2_base_plus")
    with pytest.raises(CheckpointError, match=r"sam2\.1_hiera_small\.pt"):
        method_from_options({"name": "esam", "model": "sam2_small"})
    with pytest.raises(ConfigError, match="unknown model 'sam2_huge'"):
        sam2_segmenter("sam2_huge")
    with pytest.raises(FileNotFoundError, match=r"none\.pt"):
        sam2_segmenter(weights=str(tmp_path / "none.pt"))
