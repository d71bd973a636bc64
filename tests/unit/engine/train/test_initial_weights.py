"""What a run may start from: releases of SAM 2.1 for models that lack some of its parts, and timm's weights."""

import copy

import pytest
import timm
import torch

from entitysam import build_model
from entitysam.checkpoint import CheckpointError, to_published
from entitysam.config import load_config, shipped_folder
from entitysam.engine.train.run import load_initial_weights
from entitysam.registry import ConfigError

SMALL = {"image_size": 64, "num_entities": 4}


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """A file with the names of SAM 2.1's release, and the model its numbers came from."""
    torch.manual_seed(1)
    model = build_model("tiny", **SMALL)
    own = ("image_encoder", "memory_", "maskmem", "no_mem", "sam_prompt", "sam_mask_decoder")
    tensors = {name: t for name, t in to_published(model.state_dict()).items() if name.startswith(own)}
    tensors = {name: t for name, t in tensors.items() if "queries" not in name}
    path = tmp_path_factory.mktemp("release") / "sam2.1_hiera_tiny.pt"
    torch.save({"model": tensors}, path)
    return path, model.state_dict()


@pytest.mark.parametrize("absent", [(), ("memory",), ("prompt_generator",), ("memory", "semantic_encoder")])
def test_release_of_sam2_starts_every_ablation(release, absent):
    path, source = release
    torch.manual_seed(2)
    model = build_model("tiny", **SMALL, **dict.fromkeys(absent))
    load_initial_weights(model, [str(path)])
    for name, tensor in model.state_dict().items():
        if name.startswith(("dual_encoder.image_encoder", "memory.")):
            assert torch.equal(tensor, source[name]), name
    assert not torch.equal(model.dual_encoder.fusion.weight[:, :64], source["dual_encoder.fusion.weight"][:, :64])


def test_release_for_another_trunk_is_refused(release):
    trunk = {"trunk_args": {"embed_dim": 48}}
    with pytest.raises(CheckpointError, match=r"sam2\.1_hiera_tiny\.pt: .*wrong shape"):
        load_initial_weights(build_model("tiny", **SMALL, image_encoder=trunk), str(release[0]))


def test_second_encoder_from_timm(monkeypatch):
    model = build_model("tiny", **SMALL)
    trunk = model.dual_encoder.semantic_encoder.trunk
    wanted, asked = copy.deepcopy(trunk), []
    for parameter in wanted.parameters():
        torch.nn.init.normal_(parameter)

    def hub(name, pretrained, **arguments):
        asked.append((name, pretrained, arguments))
        return wanted

    monkeypatch.setattr(timm, "create_model", hub)
    load_initial_weights(model, ["timm"])
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
        load_initial_weights(build_model("tiny", **SMALL, semantic_encoder=None), ["timm"])


def test_no_weights_and_missing_file(tmp_path):
    model = build_model("tiny", **SMALL)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    load_initial_weights(model, "")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(FileNotFoundError, match="nothing"):
        load_initial_weights(model, str(tmp_path / "nothing.pt"))
