"""The composition root: from a name or a config node to a network, and what it says where it cannot."""

import inspect

import pytest
import torch

import entitysam
from entitysam.config import InferenceConfig, load_config, to_dict
from entitysam.engine.build import build_model, model_config, pick_device
from entitysam.inference.segmenter import VideoSegmenter
from entitysam.registry import ConfigError

TINY = {"image_size": 64, "num_entities": 4}


def fails(*given, **overrides):
    with pytest.raises(ConfigError) as error:
        build_model(*given, **overrides)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"channels": 3}, "model.channels: must be "),
        ({"channels": 10**9}, "model.channels: "),
        ({"channels": 12}, "model.channels: must be a multiple of 8, not '12'"),
        ({"num_entities": 0}, "model.num_entities: must be greater than or equal to 1"),
        ({"image_size": 1000000}, "model.image_size: out of range"),
        ({"image_size": 16384}, "model.image_size: must be less than or equal to 8192"),
        ({"entity_decoder": {"depth": 0}}, "model.entity_decoder.depth: must be greater than or equal to 1"),
        ({"entity_decoder": {"heads": 7}}, "heads: must divide 64 channels, not 7"),
        ({"prompt_generator": {"heads": 7}}, "model: cannot be built (embed_dim must be divisible by num_heads)"),
        ({"memory": {"num_memories": -1}}, "model.memory.num_memories: must be greater than or equal to 1"),
        ({"memory": {"mask_widths": 4}}, "model.memory.mask_widths: must be"),
        ({"memory": {"mask_widths": [4, "a"]}}, "model.memory.mask_widths: must be"),
        ({"memory": [1]}, "model.memory: must be"),
        ({"frozen": "memory"}, "model.frozen: must be"),
        ({"image_encoder": 5}, "model.image_encoder: must be"),
        (
            {"image_encoder": {"trunk": "hf-hub:any/repo"}},
            "model.image_encoder: trunk: 'hf-hub:any/repo' is no built-in architecture of timm",
        ),
        (
            {"semantic_encoder": {"trunk": "hf-hub:any/repo"}},
            "model.semantic_encoder: trunk: 'hf-hub:any/repo' is no built-in",
        ),
        (
            {"semantic_encoder": {"trunk_args": {"depth": 10**9}}},
            "model.semantic_encoder.trunk_args.depth: out of range",
        ),
        ({"semantic_encoder": {"trunk_args": {"depth": "two"}}}, "model"),
        (
            {"image_encoder": {"trunk_args": {"stages": [10**4]}}},
            "model.image_encoder: trunk_args.stages: must be in 0..100",
        ),
    ],
)
def test_sizes_and_types_out_of_range_are_named_before_memory_is_taken(changes, named):
    assert fails("tiny_scratch", **changes).startswith(named)


def test_a_name_and_its_node_build_the_same():
    model, same = build_model("tiny_scratch", **TINY), build_model(model_config("tiny_scratch"), **TINY)
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in same.state_dict().items()}
    assert model.image_size == same.image_size == 64
    assert not model.training


def test_a_node_of_a_composed_config(tmp_path):
    config = load_config("tiny_scratch_stage1")
    for node in (config.model, to_dict(config)["model"]):
        assert build_model(node, **TINY).num_entities == 4


def test_tiny_is_small():
    assert sum(parameter.numel() for parameter in build_model("tiny_scratch").parameters()) <= 5_000_000


@pytest.mark.parametrize("name", ["vits", "vitl"])
def test_published_behaviour_is_the_default(name):
    """docs/QUIRKS.md; `tiny` was trained the paper's way."""
    keys = ("swap_first_points", "clamp_points")
    published, paper = model_config(name), model_config("tiny_scratch")
    assert [published["prompt_generator"][key] for key in keys] == [True, False]
    assert [paper["prompt_generator"][key] for key in keys] == [False, True]
    assert (published["entity_decoder"]["own_prompts"], published["entity_score"]) == (False, "max")
    assert (paper["entity_decoder"]["own_prompts"], paper["entity_score"]) == (True, "entity")
    assert published["frozen"] == [
        "dual_encoder.image_encoder", "dual_encoder.semantic_encoder", "memory", "prompt_generator.prompt_encoder",
    ]  # fmt: skip
    assert InferenceConfig().count_warmup
    assert inspect.signature(VideoSegmenter).parameters["count_warmup"].default is True


@pytest.mark.parametrize(("alias", "name"), [("vit-s", "vits"), ("vit-l", "vitl")])
def test_aliases(alias, name):
    assert model_config(alias) == model_config(name)


def test_nested_overrides_leave_their_neighbours():
    node = model_config("vits", image_size=256, entity_decoder={"depth": 6}, memory={"store_dtype": "bfloat16"})
    assert node["entity_decoder"] == {**model_config("vits")["entity_decoder"], "depth": 6}
    assert node["memory"]["store_dtype"] == "bfloat16"
    assert node["image_size"] == 256
    assert len(build_model("tiny_scratch", entity_decoder={"depth": 1}, **TINY).entity_decoder.layers) == 1


def test_a_part_of_another_name_replaces_the_former_one():
    assert model_config("vits", memory={"name": "no_memory"})["memory"] == {"name": "no_memory"}
    model = build_model("tiny_scratch", memory={"name": "no_memory"}, **TINY)
    assert type(model.memory).__name__ == "NoMemory"


def test_null_takes_a_part_away():
    model = build_model("tiny_scratch", prompt_generator=None, semantic_encoder=None, memory=None, **TINY)
    assert model.prompt_generator is None
    assert model.dual_encoder.semantic_encoder is None
    assert not any("semantic" in name for name in model.state_dict())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"colour": 1}, "model.colour: unknown key"),
        ({"memory": {"size": 7}}, "model.memory.size: unknown key; 'sam2_memory' takes"),
        ({"memory": {"channels": 7}}, "model.memory.channels: unknown key"),
        ({"memory": {"name": "elephant"}}, "model.memory.name: no model part called 'elephant'; known: "),
        ({"image_encoder": {"name": "timm_vit"}}, "model.image_encoder.trunk: missing; 'timm_vit' needs it"),
        ({"entity_decoder": {"depth": "deep"}}, "model.entity_decoder.depth: must be int, not 'deep'"),
        ({"entity_decoder": {"queries": "many"}}, "model.entity_decoder.queries: 'separate' or 'shared', not 'many'"),
        ({"num_entities": 2.5}, "model.num_entities: must be int, not '2.5'"),
        ({"image_size": 100}, "model.image_size: must be a positive multiple of 32, not 100"),
        ({"frozen": ["attic"]}, "model.frozen: "),
    ],
)
def test_what_cannot_be_built_is_named(overrides, message):
    assert fails("tiny_scratch", **overrides).startswith(message)


def test_unknown_model():
    assert fails("huge") == "unknown model 'huge'; known: tiny, tiny_scratch, vitl, vits"


def test_unknown_trunk():
    for part, trunk in (("image_encoder", "sam2_hiera_enormous"), ("semantic_encoder", "vit_enormous")):
        message = fails("tiny_scratch", **{part: {"trunk": trunk}})
        assert message.startswith(f"model.{part}: ")
        assert trunk in message
    assert "stories" in fails("tiny_scratch", image_encoder={"trunk_args": {"stories": 3}})


def test_frozen_parts_of_absent_ones_are_no_mistake():
    frozen = ["dual_encoder.semantic_encoder", "prompt_generator.prompt_encoder", "memory"]
    build_model("tiny_scratch", semantic_encoder=None, prompt_generator=None, frozen=frozen, **TINY)


def test_devices():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type in ("cuda", "mps", "cpu")
    with pytest.raises(ConfigError, match="device 'abacus' is not there"):
        pick_device("abacus")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there():
    with pytest.raises(ConfigError, match="device 'cuda' is not there"):
        pick_device("cuda")


def test_public_names():
    assert entitysam.build_model is build_model
    assert {"EntitySAM", "VideoSegmenter", "segment_video", "load_weights", "build_model"} <= set(entitysam.__all__)
    for name in entitysam.__all__:
        assert getattr(entitysam, name) is not None
    assert entitysam.inference.panoptic.merge.__name__ == "merge"
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = entitysam.nothing
