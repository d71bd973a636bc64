"""Configs of E-SAM: every key, its default, and the messages of wrong ones."""

import dataclasses

import pytest

from entitysam.config import load_config, to_dict
from entitysam.esam import settings
from entitysam.esam.mask_generation import MaskGenerationConfig
from entitysam.esam.prompting import PromptingConfig
from entitysam.esam.recovery import RecoveryConfig
from entitysam.esam.refinement import RefinementConfig
from entitysam.esam.settings import SEGMENTERS, method_from_options
from entitysam.esam.superpixels import SuperpixelConfig
from entitysam.registry import METHODS, ConfigError, build
from entitysam.settings import read_settings

SECTIONS = {
    "prompting": PromptingConfig,
    "superpixels": SuperpixelConfig,
    "mask_generation": MaskGenerationConfig,
    "refinement": RefinementConfig,
    "recovery": RecoveryConfig,
}


@pytest.fixture
def no_sam(monkeypatch):
    """Records the arguments with which SAM is built."""
    monkeypatch.setitem(SEGMENTERS._obj_map, "segment_anything", lambda **keys: keys)


def test_the_shipped_config_lists_every_key_with_its_default():
    node = to_dict(load_config("esam"))["model"]
    for name, kind in SECTIONS.items():
        assert node[name] == dataclasses.asdict(kind()), name
    assert set(node) == {"name", "segmenter", "max_pixels", *SECTIONS}


def test_values_of_table_4():
    assert (MaskGenerationConfig().object_nms, MaskGenerationConfig().object_best_iou) == (0.8, 0.6)
    assert (RefinementConfig().small_overlap, RefinementConfig().tolerance) == (0.05, 0.1)
    assert RecoveryConfig().join_iou == 0.1
    assert (PromptingConfig().points_per_side, PromptingConfig().gallery_points_per_side) == (32, 64)


@pytest.mark.parametrize("size", ["b", "l"])
def test_smaller_models_differ_in_the_model_only(size):
    node, large = to_dict(load_config(f"esam_vit{size}"))["model"], to_dict(load_config("esam"))["model"]
    assert node["segmenter"].pop("model") == f"vit_{size}"
    large["segmenter"].pop("model")
    assert node == large


def test_a_config_becomes_a_method(no_sam):
    config = load_config("esam", ["model.refinement.tolerance=0.2", "model.recovery.enabled=false"])
    method = build(METHODS, to_dict(config)["model"], "model")
    assert method.refinement.tolerance == 0.2
    assert not method.recovery.enabled
    assert method.segmenter == {"model": "vit_h", "weights": None, "device": "auto", "amp": "fp32"}


def test_options_of_a_baseline(no_sam):
    method = method_from_options(
        {"name": "esam", "model": "vit_b", "refinement.tolerance": 0.2, "prompting.min_score": 0.5}
    )
    assert method.segmenter == {"model": "vit_b"}
    assert (method.refinement.tolerance, method.prompting.min_score) == (0.2, 0.5)
    plain = method_from_options({"name": "sam", "model": "vit_b", "mask_generation.automatic_nms": 0.6})
    modules = (plain.mask_generation, plain.refinement, plain.recovery)
    assert not any(module.enabled for module in modules)
    assert plain.mask_generation.automatic_nms == 0.6


@pytest.mark.parametrize(
    ("kind", "node", "message"),
    [
        (RefinementConfig, {"tolernace": 0.1}, "model.x.tolernace"),
        (RefinementConfig, {"tolerance": "much"}, "model.x.tolerance: must be a valid number, not 'much'"),
        (RefinementConfig, {"enabled": 1}, "model.x.enabled: must be a valid boolean, not '1'"),
        (RefinementConfig, {"neighbours": [5]}, "model.x.neighbours: must be a valid integer"),
        (RefinementConfig, 5, "model.x: must be a mapping of keys to values, not '5'"),
        (PromptingConfig, {"points_per_side": 10**9}, "model.x.points_per_side: must be at most 1024"),
        (PromptingConfig, {"points_per_side": 0}, "model.x.points_per_side: must be at least 1, not 0"),
        (SuperpixelConfig, {"max_side": 0}, "model.x.max_side: must be at least 1"),
        (SuperpixelConfig, {"method": "watershed"}, "model.x.method: no method called 'watershed'"),
    ],
)
def test_wrong_settings_are_named_by_path(kind, node, message):
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        read_settings(kind, node, "model.x")


def test_a_wrong_key_is_refused_before_the_download(monkeypatch):
    def built(**_):
        raise AssertionError("SAM was built first")

    monkeypatch.setitem(SEGMENTERS._obj_map, "segment_anything", built)
    with pytest.raises(ConfigError, match=r"model\.recovery\.rho"):
        settings.esam({"name": "segment_anything"}, recovery={"rho": 1})


def test_a_section_that_does_not_exist():
    with pytest.raises(ConfigError, match=r"name\.x: unknown section; known: segmenter, prompting"):
        method_from_options({"name": "esam", "name.x": 1})
    with pytest.raises(ConfigError, match=r"model\.segmenter: must be a mapping with a name, not '5'"):
        settings.esam(5)
