"""The segment-anything back end against the package's own predictor, with random weights."""

import numpy as np
import pytest
import torch

pytest.importorskip("segment_anything", reason="the extra 'sam' is not installed")

from segment_anything import SamPredictor, sam_model_registry

from entitysam import hub
from entitysam.checkpoint import CheckpointError
from entitysam.esam import sam_backend
from entitysam.esam.prompting import PromptingConfig
from entitysam.esam.sam_backend import ARCHITECTURES, SAMArchitecture, SAMSegmenter, build_sam, sam_segmenter
from entitysam.esam.segmenter import ESAM
from entitysam.registry import ConfigError

TINY = SAMArchitecture(width=32, depth=2, heads=2, global_layers=(1,), image_size=256, channels=32)
ANY_MASK = PromptingConfig(points_per_side=4, gallery_points_per_side=6, min_score=-100.0, min_stability=0.0)


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return build_sam(TINY)


def noise_image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(96, 128), (128, 96), (300, 300), (256, 200)])
def test_same_as_the_package(tiny, size):
    image = noise_image(*size)
    points = torch.tensor([[10.0, 20.0], [size[1] - 5.0, size[0] / 2]])
    predictor = SamPredictor(tiny)
    predictor.set_image(image)
    ours = SAMSegmenter(tiny, "cpu").encode(torch.from_numpy(image).permute(2, 0, 1))
    # Torch antialiases where torchvision's resize of the package goes through Pillow; here both go through Pillow.
    rows, columns = -(-predictor.input_size[0] // 16), -(-predictor.input_size[1] // 16)
    assert ours.features.shape == (32, rows, columns)
    if predictor.input_size[0] % 16 == 0 and predictor.input_size[1] % 16 == 0:
        assert torch.allclose(ours.features, predictor.features[0, :, :rows, :columns], atol=1e-5)
    scaled = torch.from_numpy(predictor.transform.apply_coords(points.numpy(), size)).float()
    _, scores, low = predictor.predict_torch(scaled[:, None], torch.ones(2, 1, dtype=torch.int), return_logits=True)
    logits, our_scores = ours.predict(points)
    assert torch.allclose(our_scores, scores, atol=1e-5)
    height, width = ours.mask_size
    assert logits.shape == (2, 3, height, width)
    assert (height, width) == tuple(-(-side // 4) for side in predictor.input_size)
    if predictor.input_size[0] % 4 == 0 and predictor.input_size[1] % 4 == 0:
        assert torch.allclose(logits, low[..., :height, :width], atol=1e-4)


def test_fractional_cells_are_stretched_to_the_border(tiny):
    """A 256 x 250 input covers 62.5 of 64 cells: sampling at 63 must read between them, up to 62.5."""
    image = noise_image(256, 250)
    ours = SAMSegmenter(tiny, "cpu").encode(torch.from_numpy(image).permute(2, 0, 1))
    assert ours.mask_size == (64, 63)
    ramp = torch.arange(64.0).expand(64, 64)
    stretched = sam_backend._without_padding(ramp, (256, 250), 4)
    assert stretched.shape == (64, 63)
    expected = (torch.arange(63) + 0.5) * 62.5 / 63 - 0.5
    assert torch.allclose(stretched[0], expected.clamp(min=0), atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (3, 90), (120, 40), (64, 80)])
def test_end_to_end_with_random_weights(tiny, size):
    image = noise_image(*size)
    method = ESAM(SAMSegmenter(tiny, "cpu"), prompting=ANY_MASK)
    found = method.segment(image)
    assert found.ids.shape == size
    assert len(found.scores) == found.ids.max()
    assert np.array_equal(found.ids, method.segment(image).ids)


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_architectures_have_the_published_tensors(name):
    with torch.device("meta"):
        ours = {key: value.shape for key, value in build_sam(ARCHITECTURES[name]).state_dict().items()}
        published = {key: value.shape for key, value in sam_model_registry[name]().state_dict().items()}
    assert ours == published


def test_unknown_model_and_precision(tiny):
    with pytest.raises(ConfigError, match=r"unknown SAM 'vit_x'; known: vit_b, vit_l, vit_h"):
        sam_segmenter("vit_x")
    with pytest.raises(ConfigError, match="fp32, bf16 or fp16, not 'int8'"):
        SAMSegmenter(tiny, amp="int8")


def test_weights_are_checked(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "vit_b", TINY)
    path = tmp_path / "sam.pth"
    torch.save(tiny.state_dict(), path)
    loaded = sam_segmenter("vit_b", str(path), "cpu").model
    assert all(torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), tiny.state_dict().values()))
    torch.save({"something": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"sam.pth: not the weights of SAM vit_b"):
        sam_segmenter("vit_b", str(path))
    with pytest.raises(FileNotFoundError, match=r"nowhere.pth"):
        sam_segmenter("vit_b", str(tmp_path / "nowhere.pth"))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (5, "'{name}' is no dense floating-point tensor"),
        ({"a": 1}, "'{name}' is no dense floating-point tensor"),
        (torch.zeros(2, 3).to_sparse(), "'{name}' is no dense floating-point tensor"),
        (torch.zeros(2, dtype=torch.complex64), "'{name}' is no dense floating-point tensor"),
        (torch.zeros(1).expand(10**6, 10**6), "size mismatch for {name}"),
        (torch.zeros(2, 3, device="meta"), "size mismatch for {name}"),
        (None, "'{name}' is no dense floating-point tensor"),
        (torch.nan, "'{name}' has values that are not finite"),
    ],
    ids=["number", "mapping", "sparse", "complex", "expanded", "meta", "none", "nan"],
)
def test_hostile_weight_files_give_one_line(tiny, tmp_path, value, message):
    name, path, state = "image_encoder.pos_embed", tmp_path / "sam.pth", dict(tiny.state_dict())
    state[name] = state[name] * value if isinstance(value, float) else value
    torch.save(state, path)
    with pytest.raises(CheckpointError) as error:
        sam_backend._load(build_sam(TINY), path, "vit_b")
    assert str(path) in str(error.value)
    assert message.format(name=name) in str(error.value)
    assert "\n" not in str(error.value)


def test_tensor_names_must_be_strings(tiny, tmp_path):
    torch.save({**tiny.state_dict(), 5: torch.zeros(1)}, tmp_path / "sam.pth")
    with pytest.raises(CheckpointError, match="holds tensors whose names are not text"):
        sam_backend._load(build_sam(TINY), tmp_path / "sam.pth", "vit_b")


def test_the_offline_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *names, **options: None)
    monkeypatch.setattr(hub, "hub_is_reachable", lambda: False)
    with pytest.raises(CheckpointError, match=r"sam_vit_l_0b3195.pth.*put it at"):
        sam_backend.fetch_sam_weights("vit_l", tmp_path)
    (tmp_path / "sam_vit_l_0b3195.pth").touch()
    assert sam_backend.fetch_sam_weights("vit_l", tmp_path) == tmp_path / "sam_vit_l_0b3195.pth"


@pytest.mark.slow
def test_vit_b_at_its_own_size():
    torch.manual_seed(0)
    settings = PromptingConfig(points_per_side=2, gallery_points_per_side=2, min_score=-100.0, min_stability=0.0)
    method = ESAM(sam_segmenter("vit_b", "random", "cpu"), prompting=settings)
    found = method.segment(noise_image(120, 160))
    assert found.ids.shape == (120, 160)
