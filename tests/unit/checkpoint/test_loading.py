"""Loading and saving weights: four naming schemes, files with and without a config, and bad files."""

import copy
import json
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch
from golden.seeded_weights import seeded_state_dict

import entitysam
from entitysam.checkpoint import (
    CheckpointError,
    describe,
    load_weights,
    published_name,
    read_weights,
    save_weights,
    to_published,
)
from entitysam.engine.build import model_config
from entitysam.errors import ConfigError

MODELS = Path(__file__).parents[2] / "golden" / "model"
ENTITYSAM_ALONE = ("point_sampler_", "offset_", "dinov2_", "backbone_feature_enhancement", "sam_mask_decoder.queries",
                   "sam_mask_decoder.iou_queries", "sam_mask_decoder.cls_prediction_head")  # fmt: skip
SAM2_ALONE = {
    "no_obj_ptr": [1, 256],
    "mask_downsample.weight": [1, 1, 4, 4],
    "mask_downsample.bias": [1],
    "obj_ptr_proj.layers.0.weight": [256, 256],
    "sam_mask_decoder.obj_score_token.weight": [1, 256],
    "sam_mask_decoder.pred_obj_score_head.layers.2.bias": [1],
}


def manifest(size):
    return json.loads((MODELS / f"manifest_{size}.json").read_text())


def sam2_names(size):
    """The manifest of SAM 2.1's release: a decoder of two layers, no EntitySAM."""
    shared = {
        name: shape
        for name, shape in manifest(size).items()
        if not name.startswith(ENTITYSAM_ALONE)
        and (".transformer.layers." not in name or name.split(".transformer.layers.")[1][0] in "01")
    }
    return {**shared, **SAM2_ALONE}


def dinov2_names(size):
    """The manifest of DINOv2's release."""
    prefix = "dinov2_feature_extractor."
    return {n.removeprefix(prefix): shape for n, shape in manifest(size).items() if n.startswith(prefix)}


def zeros(shapes):
    """Zeros of the given shapes that share one element of memory."""
    return {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def meta_vits():
    """vits on the meta device: loading checks names and shapes and stores nothing."""
    with torch.device("meta"):
        return entitysam.build_model("vits", image_size=64)


@pytest.fixture
def model(small_model):
    return copy.deepcopy(small_model)


@pytest.fixture
def other(model):
    """Other weights for `model`."""
    return seeded_state_dict({name: value.shape for name, value in model.state_dict().items()}, seed=5)


def assert_holds(model, expected):
    state = model.state_dict()
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(state[name], value), name


def fails(model, weights):
    """The message of a load that fails; asserts that the model is unchanged."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as error:
        load_weights(model, weights)
    assert "\n" not in str(error.value)
    if not any(value.is_meta for value in before.values()):
        assert_holds(model, before)
    return str(error.value)


# Naming schemes -------------------------------------------------------------------------------------------------------


def test_our_own_names(model, other):
    report = load_weights(model, other)
    assert (report.kind, report.loaded, report.untouched) == ("entitysam", len(other), [])
    assert_holds(model, other)


def test_published_names(model, other):
    report = load_weights(model, {"model": to_published(other)})
    assert (report.kind, report.untouched) == ("published", [])
    assert_holds(model, other)


def test_published_manifest(meta_vits):
    names = manifest("vits")
    report = load_weights(meta_vits, zeros(names))
    assert (report.kind, report.untouched) == ("published", [])
    assert report.loaded == len(meta_vits.state_dict()) < len(names)


def test_a_sam2_release_fills_its_parts(meta_vits):
    report = load_weights(meta_vits, {"model": zeros(sam2_names("vits"))})
    assert report.kind == "SAM 2.1"
    theirs = ("dual_encoder.image_encoder.", "memory.", "prompt_generator.prompt_encoder.")
    assert not any(name.startswith(theirs) for name in report.untouched)
    assert "entity_decoder.layers.2.norm1.weight" in report.untouched
    assert "entity_decoder.layers.1.norm1.weight" not in report.untouched
    assert "dual_encoder.semantic_encoder.trunk.cls_token" in report.untouched


def test_a_dinov2_release_fills_its_part(meta_vits):
    report = load_weights(meta_vits, zeros(dinov2_names("vits")))
    assert report.kind == "DINOv2"
    loaded = set(meta_vits.state_dict()) - set(report.untouched)
    assert loaded == {n for n in meta_vits.state_dict() if n.startswith("dual_encoder.semantic_encoder.")}


def test_both_releases_at_once(meta_vits):
    report = load_weights(meta_vits, zeros({**sam2_names("vits"), **dinov2_names("vits")}))
    assert report.kind == "SAM 2.1 + DINOv2"
    assert not any(name.startswith("dual_encoder.semantic_encoder.") for name in report.untouched)


def test_sam2_release_starts_models_that_lack_some_of_its_parts():
    with torch.device("meta"):
        model = entitysam.build_model("vits", image_size=64, memory=None, prompt_generator=None, semantic_encoder=None)
    report = load_weights(model, zeros(sam2_names("vits")))
    assert not any(name.startswith("dual_encoder.image_encoder.") for name in report.untouched)


def test_values_of_a_release_are_loaded_into_the_tensors_of_the_table(model, other):
    """tiny's tensors under SAM 2.1's names."""
    prefixes = ("dual_encoder.image_encoder.", "memory.", "prompt_generator.prompt_encoder.")
    theirs = {published_name(name): value for name, value in other.items() if name.startswith(prefixes)}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = load_weights(model, theirs)
    assert report.kind == "SAM 2.1"
    assert_holds(model, {name: other[name] if name.startswith(prefixes) else before[name] for name in before})


def test_low_precision_weights_are_converted(model, other):
    load_weights(model, {name: value.bfloat16() for name, value in other.items()})
    assert_holds(model, {name: value.bfloat16().float() for name, value in other.items()})


# Names and shapes that do not fit -------------------------------------------------------------------------------------------------


def test_missing(model, other):
    del other["memory.temporal_code"]
    assert "state dict: missing memory.temporal_code; it seems to be an EntitySAM model" in fails(model, other)


def test_unknown(model, other):
    message = fails(model, {**other, "attic.box": torch.zeros(1)})
    assert "unknown attic.box" in message
    assert "unknown attic.box" in fails(model, {**to_published(other), "attic.box": torch.zeros(1)})


def test_misshapen(model, other):
    other["entity_decoder.mask_queries.weight"] = torch.zeros(9, 64)
    assert "wrong shape entity_decoder.mask_queries.weight [9, 64] (the model has [6, 64])" in fails(model, other)


def test_long_lists_are_cut(model, other):
    few = {name: other[name] for name in list(other) if "entity_decoder" in name}
    assert f"and {len(other) - len(few) - 3} more" in fails(model, few)


def test_a_file_of_the_other_size_is_recognised(meta_vits):
    message = fails(meta_vits, zeros(manifest("vitl")))
    assert "it seems to be an EntitySAM vitl model" in message
    assert "Hiera width 144 (large), decoder depth 8" in message
    assert "seems to be a SAM 2.1 release, Hiera width 144 (large)" in fails(meta_vits, zeros(sam2_names("vitl")))
    assert "an EntitySAM vits model" in describe(zeros(manifest("vits")))


def test_a_release_without_one_of_its_tensors(meta_vits):
    names = sam2_names("vits")
    del names["memory_encoder.out_proj.bias"]
    assert "missing memory.encoder.out_proj.bias" in fails(meta_vits, zeros(names))


def test_something_else(model):
    assert (
        "not an EntitySAM, MASA, SAM, SAM 2.1, DINOv2 or Grounding-DINO checkpoint (it holds conv1.weight, ...)"
        in fails(model, {"conv1.weight": torch.zeros(1)})
    )
    assert "state dict: holds no tensors" in fails(model, {"model": {}})


def test_parts_that_published_files_do_not_have_are_named(model):
    lone = entitysam.build_model("tiny_scratch", image_size=64, num_entities=6, prompt_generator=None)
    with pytest.raises(
        CheckpointError, match=r"entity_decoder\.entity_head\.\S+: has no place in a published checkpoint"
    ):
        to_published(lone.state_dict())


# Files ----------------------------------------------------------------------------------------------------------------


def test_our_files_contain_their_config(model, other, tmp_path):
    config = model_config("tiny_scratch", image_size=64, num_entities=6)
    path = tmp_path / "new" / "mine.safetensors"
    load_weights(model, other)
    save_weights(path, model, config)
    assert [file.name for file in path.parent.iterdir()] == ["mine.safetensors"]
    state, kept = read_weights(path)
    assert kept == config
    again = entitysam.build_model(kept)
    load_weights(again, path)
    assert_holds(again, other)
    assert state.keys() == other.keys()


def test_training_checkpoint(model, other, tmp_path):
    config = {"model": model_config("tiny_scratch"), "optim": {"lr": 1}}
    torch.save({"model": other, "optimizer": {"state": {}}, "iteration": 5, "config": config}, tmp_path / "a.pt")
    state, kept = read_weights(tmp_path / "a.pt")
    assert kept == config["model"]
    assert load_weights(model, tmp_path / "a.pt").kind == "entitysam"
    assert_holds(model, other)
    assert state.keys() == other.keys()


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04broken"])
def test_unreadable_files(model, tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    assert fails(model, path).startswith(f"{path}: cannot be read as weights (")


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_truncated_files(model, other, tmp_path, name):
    path = tmp_path / name
    if name.endswith("pth"):
        torch.save(other, path)
    else:
        safetensors.torch.save_file(other, path)
    path.write_bytes(path.read_bytes()[:-5000])
    assert "cannot be read as weights" in fails(model, path)


class RunsCode:
    """A pickle that runs code when it is opened."""

    def __reduce__(self):
        return (Path.touch, (Path("entitysam_was_here"),))


@pytest.mark.parametrize(
    "save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2))]
)
def test_code_in_a_file_never_runs(model, tmp_path, monkeypatch, save):
    monkeypatch.chdir(tmp_path)
    save({"model": RunsCode()}, tmp_path / "a.pth")
    assert "cannot be read as weights" in fails(model, tmp_path / "a.pth")
    assert not Path("entitysam_was_here").exists()


def test_a_file_of_something_else(model, tmp_path):
    torch.save([torch.zeros(1)], tmp_path / "a.pt")
    assert "holds a list, not named tensors" in fails(model, tmp_path / "a.pt")


def test_no_such_file(model, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no weight file .*nowhere\.pt"):
        load_weights(model, tmp_path / "nowhere.pt")


@pytest.mark.parametrize("change", [lambda t: t.to("meta"), lambda t: t.to_sparse(), lambda t: t.to(torch.complex64)])
def test_tensors_without_real_dense_values_are_refused(model, other, change):
    other["memory.temporal_code"] = change(other["memory.temporal_code"])
    assert fails(model, other).startswith("state dict: tensor 'memory.temporal_code' ")


@pytest.mark.parametrize("config", ["[1]", '"tiny"', "5"])
def test_a_config_that_is_no_mapping_is_refused(tmp_path, config):
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(1)}, path, {"config": config})
    with pytest.raises(CheckpointError, match=r"a\.safetensors: its model config is a \w+, not a mapping"):
        read_weights(path)


def test_a_config_that_asks_for_all_memory_is_refused_before_anything_is_built(tmp_path):
    path = tmp_path / "a.safetensors"
    node = {**model_config("tiny"), "channels": 1024, "num_entities": 10**8}
    safetensors.torch.save_file({"a": torch.zeros(1)}, path, {"config": json.dumps(node)})
    with pytest.raises(ConfigError, match=r"model\.num_entities: out of range"):
        entitysam.build_model(read_weights(path)[1])
