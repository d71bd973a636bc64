"""The pyramid over a timm trunk: strides, frozen statistics, and what it refuses; and weights of released classifiers."""

import pytest
import timm
import torch

from entitysam.checkpoint import CheckpointError, load_weights
from entitysam.checkpoint.names.trunk import efficientnet_table
from entitysam.engine.build import build_model
from entitysam.layers.pyramid_encoder import PyramidEncoder
from entitysam.registry import ConfigError

SMALL = {
    "image_encoder": {"name": "timm_pyramid", "trunk": "efficientnet_lite0"},
    "semantic_encoder": None, "channels": 32, "image_size": 64, "frozen": [],
    "memory": {"name": "no_memory"},
    "entity_decoder": {"depth": 1, "heads": 2, "hidden": 32},
    "prompt_generator": {"name": "grid_prompts"}, "num_entities": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return PyramidEncoder("efficientnet_lite0", 16)


@pytest.fixture(scope="module")
def model():
    return build_model("vits", **SMALL)


def test_gives_maps_of_stride_4_8_16(encoder):
    maps = encoder(torch.randn(2, 3, 64, 64))
    assert [tuple(x.shape) for x in maps] == [(2, 16, 16, 16), (2, 16, 8, 8), (2, 16, 4, 4)]


def test_coarse_maps_reach_the_fine_ones(encoder):
    images = torch.randn(1, 3, 64, 64)
    before = encoder(images)[0]
    with torch.no_grad():
        encoder.lateral[-1].bias[0] += 1.0  # of stride 32
        after = encoder(images)[0]
        encoder.lateral[-1].bias[0] -= 1.0
    assert not torch.allclose(before, after, atol=1e-3)


def test_batch_norms_keep_their_statistics_in_training(encoder):
    encoder.train()
    before = {name: buffer.clone() for name, buffer in encoder.named_buffers()}
    encoder(torch.randn(2, 3, 64, 64) + 3)
    assert all(torch.equal(buffer, before[name]) for name, buffer in encoder.named_buffers())
    encoder.eval()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"trunk": "no_such_trunk"}, "timm has no model 'no_such_trunk'"),
        ({"trunk": "vit_tiny_patch16_224"}, "stride 16, 16, 16"),
        ({"trunk": "efficientnet_lite0", "coarsest": 8}, "coarsest: 16 or 32"),
        ({"trunk": "efficientnet_lite0", "groups": 5}, "5 groups"),
    ],
)
def test_refuses_by_one_line(arguments, words):
    with pytest.raises(ConfigError) as error:
        build_model("vits", **{**SMALL, "image_encoder": {"name": "timm_pyramid", **arguments}})
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def released(model, numbered):
    """A classifier's state dict in timm's names, or in those of the EfficientNet packages, with every tensor different."""
    classifier = timm.create_model("efficientnet_lite0")
    state = {name: torch.randn_like(x.float()) for name, x in classifier.state_dict().items()}
    if not numbered:
        return state
    names = {ours: theirs for theirs, ours in efficientnet_table(model.dual_encoder.image_encoder.trunk).items()}
    top = {"conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    renamed = {}
    for name, tensor in state.items():
        part, _, leaf = name.rpartition(".")
        renamed[f"{names.get(part) or top[part]}.{leaf}"] = tensor
    return renamed


@pytest.mark.parametrize("numbered", [False, True])
def test_loads_released_classifiers(model, numbered):
    state = released(model, numbered)
    report = load_weights(model, state)
    assert report.kind == ("EfficientNet" if numbered else "timm")
    trunk = model.dual_encoder.image_encoder.trunk
    first, last = (
        ("_blocks.0._project_conv", "_blocks.15._bn2") if numbered else ("blocks.0.0.conv_pw", "blocks.6.0.bn3")
    )
    assert torch.equal(trunk.blocks[0][0].conv_pw.weight, state[f"{first}.weight"])
    assert torch.equal(trunk.blocks[6][0].bn3.running_var, state[f"{last}.running_var"])
    assert all(
        name.startswith("dual_encoder.image_encoder.trunk.") == (name not in report.untouched)
        for name in model.state_dict()
    )


def test_names_of_the_package_in_full(model):
    """Spot checks by hand, so that the table is not only compared with itself."""
    table = efficientnet_table(model.dual_encoder.image_encoder.trunk)
    assert table["_bn0"] == "bn1"
    assert table["_blocks.0._bn2"] == "blocks.0.0.bn2"
    assert table["_blocks.1._expand_conv"] == "blocks.1.0.conv_pw"
    assert table["_blocks.2._bn2"] == "blocks.1.1.bn3"
    assert table["_blocks.15._project_conv"] == "blocks.6.0.conv_pwl"


@pytest.mark.parametrize("change", ["missing", "unknown", "shape"])
def test_refuses_another_trunk(model, change):
    state = released(model, True)
    if change == "missing":
        del state["_blocks.3._bn1.weight"]
    elif change == "unknown":
        state["_blocks.16._bn1.weight"] = torch.zeros(3)
    else:
        state["_blocks.3._bn1.weight"] = torch.zeros(3)
    words = {"missing": "missing", "unknown": "_blocks.16._bn1.weight", "shape": "wrong shape"}[change]
    with pytest.raises(CheckpointError, match=words):
        load_weights(model, state)


def test_a_classifier_needs_a_pyramid(model):
    other = build_model(
        "vits", **{**SMALL, "image_encoder": {"name": "hiera", "trunk": "sam2_hiera_tiny"}, "image_size": 128}
    )
    with pytest.raises(CheckpointError, match="timm_pyramid"):
        load_weights(other, released(model, True))
