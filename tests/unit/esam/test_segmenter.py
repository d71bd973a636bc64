"""E-SAM on the simulated SAM: invariants, odd sizes, and images with a known result."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[3] / "tools"))

from simulated_sam import ErrorModel, SimulatedSAM

from entitysam.esam.mask_generation import MaskGenerationConfig
from entitysam.esam.prompting import PromptingConfig
from entitysam.esam.recovery import RecoveryConfig
from entitysam.esam.refinement import RefinementConfig
from entitysam.esam.segmenter import ESAM, Trace, as_rgb
from entitysam.esam.superpixels import SuperpixelConfig
from entitysam.ops import mask_iou

GRIDS = PromptingConfig(points_per_side=12, gallery_points_per_side=20)
MODULES = [(mmg, emr, usr) for mmg in (True, False) for emr in (True, False) for usr in (True, False)]


def scene(height: int = 96, width: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """Four textured entities and a void corner: uint8 [H, W, 3] and ids [H, W]."""
    y, x = np.mgrid[:height, :width]
    ids = np.where(x < width // 2, 1, 2).astype(np.int32)
    ids[np.hypot(y - height / 2, x - width / 2) < height / 4] = 3
    ids[: height // 4, : width // 4] = 4
    ids[-height // 6 :, -width // 6 :] = 0
    colours = np.array([[0, 0, 0], [200, 60, 60], [60, 200, 60], [60, 60, 200], [200, 200, 60]])
    noise = np.random.default_rng(0).integers(-20, 20, (height, width, 3))
    return np.clip(colours[ids] + noise, 0, 255).astype(np.uint8), ids


def method(
    ids: np.ndarray,
    mmg: bool = True,
    emr: bool = True,
    usr: bool = True,
    seed: int = 0,
    errors: ErrorModel | None = None,
) -> ESAM:
    return ESAM(
        SimulatedSAM(ids, seed, errors, grid_side=64),
        prompting=GRIDS,
        # Felzenszwalb's superpixels are as large as these flat entities; merging needs several in each piece.
        superpixels=SuperpixelConfig(method="slic", num_segments=150),
        mask_generation=MaskGenerationConfig(enabled=mmg),
        refinement=RefinementConfig(enabled=emr),
        recovery=RecoveryConfig(enabled=usr),
    )


@pytest.mark.parametrize("modules", MODULES)
def test_invariants_of_a_result(modules):
    """Ids have no gaps, are in order of descending score and have pixels; a second run gives the same."""
    image, ids = scene()
    found = method(ids, *modules).segment(image)
    assert found.ids.shape == ids.shape
    assert found.ids.dtype == np.int32
    assert np.unique(found.ids[found.ids > 0]).tolist() == list(range(1, len(found.scores) + 1))
    assert (np.diff(found.scores) <= 0).all()
    again = method(ids, *modules).segment(image)
    assert np.array_equal(again.ids, found.ids)
    assert np.array_equal(again.scores, found.scores)


def test_the_result_does_not_depend_on_the_batch_size():
    image, ids = scene()
    one = method(ids)
    other = method(ids)
    other.prompting = PromptingConfig(points_per_side=12, gallery_points_per_side=20, points_per_batch=7)
    assert np.array_equal(one.segment(image).ids, other.segment(image).ids)


def test_emr_covers_nothing_new_and_usr_only_adds():
    """EMR splits, merges and drops masks inside the covered area; USR only adds to it."""
    image, ids = scene()
    for seed in range(3):
        trace = Trace()
        method(ids, seed=seed).segment(image, trace)
        before, after, last = (trace.steps[name].grid_labels() for name in ("MMG", "EMR", "USR"))
        assert (before > 0)[after > 0].all()
        assert torch.equal(after[after > 0], last[after > 0])
        assert (last > 0).sum() >= (after > 0).sum()


def test_the_trace_has_the_enabled_steps():
    image, ids = scene()
    trace = Trace()
    method(ids).segment(image, trace)
    assert list(trace.steps) == ["AMG", "MMG", "EMR", "USR"]
    assert trace.superpixels is not None
    assert trace.prompts is not None
    trace = Trace()
    method(ids, mmg=False, emr=False, usr=False).segment(image, trace)
    assert list(trace.steps) == ["AMG"]
    assert trace.prompts is None


def test_tracing_does_not_change_the_result():
    image, ids = scene()
    plain, traced = method(ids).segment(image), method(ids).segment(image, Trace())
    assert np.array_equal(plain.ids, traced.ids)
    assert np.array_equal(plain.scores, traced.scores)


def test_no_device_is_synchronised(monkeypatch):
    """Only the benchmark measures time: segmenting an image does not wait for the device."""

    def refuse(*_):
        raise AssertionError("a device was synchronised")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", refuse)
    image, ids = scene()
    assert method(ids).segment(image, Trace()).ids.max() > 0


def test_emr_merges_the_parts_of_an_entity():
    """Where no entity is missed or merged with another, EMR restores entities of which SAM gives parts."""

    def agreement(found: np.ndarray) -> float:
        """Mean best IoU of true entities with found ones and of found ones with true ones."""
        iou = mask_iou(one_hot(ids), one_hot(found))
        return float((iou.max(1).values.mean() + iou.max(0).values.mean()) / 2)

    image, ids = scene()
    errors = ErrorModel(swallows=0.0, in_pieces=1.0, hidden=0.0, whole_now_and_then=0.3)
    plain, whole = [], []
    for seed in range(3):
        for modules, values in (((False, False, False), plain), ((True, True, True), whole)):
            values.append(agreement(method(ids, *modules, seed=seed, errors=errors).segment(image).ids))
    assert np.mean(whole) > np.mean(plain) + 0.1
    assert np.mean(whole) > 0.65


def one_hot(ids: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(ids == np.unique(ids[ids > 0])[:, None, None])


def test_perfect_masks_are_kept():
    """If every point gives its entity at all levels, the result is the ground truth at the image's resolution."""

    class Perfect:
        features = torch.ones(1, 8, 8)

        def __init__(self, ids: np.ndarray):
            self.ids = torch.from_numpy(ids).long()
            self.mask_size = (ids.shape[0] // 2, ids.shape[1] // 2)

        def encode(self, image):
            return self

        def predict(self, points):
            name = self.ids[points[:, 1].long(), points[:, 0].long()]
            coarse = self.ids[::2, ::2]
            inside = coarse == name[:, None, None]
            logits = torch.where(inside, 20.0, -20.0)[:, None].expand(-1, 3, -1, -1)
            return logits, torch.full((len(points), 3), 0.95)

    y, x = np.mgrid[:96, :128]
    ids = (1 + (x >= 64) + 2 * (y >= 48)).astype(np.int32)
    found = ESAM(Perfect(ids), prompting=GRIDS).segment(np.zeros((96, 128, 3), np.uint8))
    assert len(found.scores) == 4
    pairs = np.unique(np.stack([ids.ravel(), found.ids.ravel()]), axis=1)
    assert pairs.shape[1] == 4


def test_no_mask_passes_the_filters():
    """The result has no entity; there is no error."""
    image, ids = scene()
    found = method(np.zeros_like(ids)).segment(image)
    assert found.ids.sum() == 0
    assert len(found.scores) == 0


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (300, 2), (7, 5)])
@pytest.mark.parametrize("modules", [(True, True, True), (False, False, False)])
def test_odd_sizes(size, modules):
    ids = np.ones(size, np.int32)
    ids[:, size[1] // 2 :] = 2
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    found = method(ids, *modules).segment(image)
    assert found.ids.shape == size


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (10, 200, 30)])
def test_one_colour(colour):
    """One superpixel, hence neither density nor neighbours."""
    ids = np.ones((60, 90), np.int32)
    ids[20:40, 30:60] = 2
    image = np.broadcast_to(np.array(colour, np.uint8), (60, 90, 3))
    assert method(ids).segment(image).ids.max() >= 1


def test_a_large_image_is_drawn_in_strips(monkeypatch):
    """The strips fit together, and borders are within a few pixels of the truth."""
    from entitysam.esam import layers

    image, ids = scene(600, 800)
    whole = method(ids).segment(image)
    monkeypatch.setattr(layers, "STRIP_PIXELS", 800 * 37)
    strips = method(ids).segment(image)
    assert np.array_equal(whole.ids, strips.ids)


def test_grey_and_transparent_images():
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert np.array_equal(as_rgb(grey, 100), np.repeat(grey[..., None], 3, 2))
    rgba = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
    assert np.array_equal(as_rgb(rgba, 100), rgba[..., :3])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3)), "uint8"),
        (np.zeros((4, 4, 2), np.uint8), "1, 3 or 4 channels, not 2"),
        (np.zeros((0, 4, 3), np.uint8), "empty: 0 x 4"),
        (np.zeros((11, 10, 3), np.uint8), "11 x 10 pixels, more than max_pixels = 100"),
        (np.zeros((2, 3, 4, 4), np.uint8), "uint8 \\[H, W\\]"),
    ],
)
def test_images_that_are_refused(image, message):
    with pytest.raises(ValueError, match=message):
        as_rgb(image, 100)
