"""Opening weights: by name or file, releases of SAM 2.1 for models that lack some of its parts, timm's weights."""

import copy

import pytest
import timm
import torch

import entitysam
from entitysam import build_model
from entitysam.checkpoint import CheckpointError, save_weights, to_published
from entitysam.config import load_config
from entitysam.engine.build import model_config
from entitysam.engine.build.opening import load_timm_weights, open_model
from entitysam.errors import ConfigError
from entitysam.shipped import shipped_folder

SMALL = {"image_size": 64, "num_entities": 4}


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """A file with the names of SAM 2.1's release, and the model its numbers came from."""
    torch.manual_seed(1)
    model = build_model("tiny_scratch", **SMALL)
    own = ("image_encoder", "memory_", "maskmem", "no_mem", "sam_prompt", "sam_mask_decoder")
    tensors = {name: t for name, t in to_published(model.state_dict()).items() if name.startswith(own)}
    tensors = {name: t for name, t in tensors.items() if "queries" not in name}
    path = tmp_path_factory.mktemp("release") / "sam2.1_hiera_tiny.pt"
    torch.save({"model": tensors}, path)
    return path, model.state_dict()


@pytest.mark.parametrize("absent", [(), ("memory",), ("prompt_generator",), ("memory", "semantic_encoder")])
def test_release_of_sam2_starts_every_ablation(release, absent):
    path, source = release
    node = model_config("tiny_scratch", **SMALL, **dict.fromkeys(absent))
    model = open_model(node, [str(path)], seed=2, partial=True).model
    for name, tensor in model.state_dict().items():
        if name.startswith(("dual_encoder.image_encoder", "memory.")):
            assert torch.equal(tensor, source[name]), name
    assert not torch.equal(model.dual_encoder.fusion.weight[:, :64], source["dual_encoder.fusion.weight"][:, :64])


def test_release_for_another_trunk_is_refused(release):
    node = model_config("tiny_scratch", **SMALL, image_encoder={"trunk_args": {"embed_dim": 48}})
    with pytest.raises(CheckpointError, match=r"sam2\.1_hiera_tiny\.pt: .*wrong shape"):
        open_model(node, str(release[0]), partial=True)


def test_second_encoder_from_timm(monkeypatch):
    model = build_model("tiny_scratch", **SMALL)
    trunk = model.dual_encoder.semantic_encoder.trunk
    wanted, asked = copy.deepcopy(trunk), []
    for parameter in wanted.parameters():
        torch.nn.init.normal_(parameter)

    def hub(name, pretrained, **arguments):
        asked.append((name, pretrained, arguments))
        return wanted

    monkeypatch.setattr(timm, "create_model", hub)
    load_timm_weights(model)
    assert asked == [("vit_tiny_patch16_224.augreg_in21k_ft_in1k", True, {"num_classes": 0})]
    for name, tensor in trunk.state_dict().items():
        assert torch.equal(tensor, wanted.state_dict()[name]), name


def test_ablations_name_encoders_that_timm_has_weights_of():
    found = []
    for path in sorted((shipped_folder("configs") / "ablations").glob("*.yaml")):
        config = load_config(path)
        if "timm" in config.weights:
            found.append(path.stem)
            assert timm.get_pretrained_cfg(config.model.semantic_encoder.trunk).hf_hub_id
    assert found == ["dinov3", "table9_clip", "table9_sam"]


def test_timm_without_a_second_encoder():
    with pytest.raises(ConfigError, match="'timm' needs"):
        open_model(model_config("tiny_scratch", **SMALL, semantic_encoder=None), "timm", partial=True)


def test_a_release_of_a_part_is_no_whole_model(release):
    with pytest.raises(
        CheckpointError, match=r"sam2\.1_hiera_tiny\.pt: a SAM 2\.1 release is not a complete model; it lacks "
    ):
        open_model(model_config("tiny_scratch", **SMALL), str(release[0]))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    torch.manual_seed(3)
    model = build_model("tiny_scratch", **SMALL)
    save_weights(path, model, model_config("tiny_scratch", **SMALL))
    return path, model.state_dict()


def equal(model, state):
    return all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_a_file_brings_its_config(file):
    path, state = file
    model = entitysam.load_model(path, device="cpu")
    assert equal(model, state)
    assert (model.num_entities, model.image_size, model.training) == (4, 64, False)


def test_keys_are_merged_over_the_config_of_the_file(file):
    opened = open_model({"image_size": 128}, str(file[0]))
    assert opened.model.image_size == 128
    assert opened.model.num_entities == 4
    assert opened.weights == file[0]


def test_equal_models_have_equal_fingerprints(file):
    first, again = (open_model(str(file[0])).fingerprint for _ in range(2))
    assert first == again
    assert open_model(str(file[0]), overrides={"image_size": 128}).fingerprint != first
    seeds = [open_model("tiny", "random", overrides=SMALL, seed=seed).fingerprint for seed in (0, 1)]
    assert seeds[0] != seeds[1]


def test_random_weights_depend_on_the_seed_alone():
    first, again, other = (open_model("tiny", "random", overrides=SMALL, seed=seed).model for seed in (0, 0, 1))
    assert equal(first, again.state_dict())
    assert not equal(first, other.state_dict())


def test_shipped_models_have_their_weights():
    assert entitysam.load_model("tiny", "cpu").num_entities > 0
    assert hasattr(entitysam.load_model("masa_tiny", "cpu"), "embed")


def test_another_kind_of_network_is_refused(file):
    with pytest.raises(CheckpointError, match="a MASA, not an EntitySAM"):
        open_model("masa_tiny", kind="entity_sam")
    with pytest.raises(CheckpointError, match=r"small\.safetensors: an EntitySAM, not a MASA"):
        open_model(str(file[0]), kind="masa")


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (("tiny", "nothing.pt"), FileNotFoundError, "no weight file nothing.pt"),
        (("a.pth", "b.pth"), ConfigError, "two weight files"),
        (("", "random"), ConfigError, "model: missing; with random weights name one"),
        (("huge",), ConfigError, "unknown model 'huge'"),
    ],
)
def test_what_cannot_be_opened_is_named(given, error, message):
    with pytest.raises(error, match=message):
        open_model(*given)
