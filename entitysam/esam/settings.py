"""Builds an `ESAM` from the `model` node of a config; error messages name the path of a wrong key."""

from collections.abc import Mapping
from typing import Any

from entitysam.esam.mask_generation import MaskGenerationConfig
from entitysam.esam.prompting import PromptingConfig
from entitysam.esam.recovery import RecoveryConfig
from entitysam.esam.refinement import RefinementConfig
from entitysam.esam.sam_backend import sam_segmenter
from entitysam.esam.segmenter import ESAM
from entitysam.esam.superpixels import SuperpixelConfig
from entitysam.registry import METHODS, ConfigError, Registry, build
from entitysam.settings import read_settings

__all__ = ["SEGMENTERS", "esam", "method_from_options", "plain_sam"]

Node = Mapping[str, Any]

MODULES = ("mask_generation", "refinement", "recovery")
SECTIONS = ("segmenter", "prompting", "superpixels", *MODULES)

SEGMENTERS = Registry("promptable segmenter")
SEGMENTERS.register("segment_anything")(sam_segmenter)


@METHODS.register("esam")
def esam(
    segmenter: Node,
    prompting: Node | None = None,
    superpixels: Node | None = None,
    mask_generation: Node | None = None,
    refinement: Node | None = None,
    recovery: Node | None = None,
    max_pixels: int = 178_000_000,
) -> ESAM:
    """E-SAM from its config node. The keys and the sources of their defaults are documented in the classes below.

    Args:
        segmenter: part of SEGMENTERS, e.g. {name: segment_anything, model: vit_h, weights: null, device: auto}.
        prompting: `PromptingConfig`.
        superpixels: `SuperpixelConfig`.
        mask_generation: `MaskGenerationConfig`.
        refinement: `RefinementConfig`.
        recovery: `RecoveryConfig`.
        max_pixels: see `ESAM`.

    Raises:
        ConfigError: unknown key, wrong type or value, named by its path.
    """
    # Checked before the network is built, because building it may download weights.
    settings: dict[str, Any] = {
        "prompting": read_settings(PromptingConfig, prompting, "model.prompting"),
        "superpixels": read_settings(SuperpixelConfig, superpixels, "model.superpixels"),
        "mask_generation": read_settings(MaskGenerationConfig, mask_generation, "model.mask_generation"),
        "refinement": read_settings(RefinementConfig, refinement, "model.refinement"),
        "recovery": read_settings(RecoveryConfig, recovery, "model.recovery"),
    }
    if not isinstance(segmenter, Mapping):
        raise ConfigError(f"model.segmenter: must be a mapping with a name, not '{segmenter}'")
    return ESAM(build(SEGMENTERS, segmenter, "model.segmenter"), **settings, max_pixels=max_pixels)


@METHODS.register("sam")
def plain_sam(**node: Any) -> ESAM:
    """Baseline: SAM's automatic masks, made disjoint by score. Same keys as `esam`; its modules are disabled."""
    sections = {name: {**(node.pop(name, None) or {}), "enabled": False} for name in MODULES}
    return esam(**node, **sections)


def method_from_options(options: Mapping[str, Any]) -> ESAM:
    """E-SAM or plain SAM from the flat keys of a command line.

    Args:
        options: `name` ("esam" or "sam"); keys with a dot belong to a section, e.g. "refinement.tolerance", which may also be a
            mapping; the others belong to the segmenter: model, weights, device, amp. A model `sam2_*` is SAM 2.1, which
            `engine.build.promptable` adds to SEGMENTERS.

    Raises:
        ConfigError: unknown key, wrong type or value.
    """
    sam2 = str(options.get("model", "")).startswith("sam2")
    segmenter: dict[str, Any] = {"name": "sam2" if sam2 else "segment_anything"}
    node: dict[str, Any] = {"name": options["name"], "segmenter": segmenter}
    for key, value in options.items():
        section, dot, inner = key.partition(".")
        if dot and section not in SECTIONS:
            raise ConfigError(f"{key}: unknown section; known: {', '.join(SECTIONS)}")
        if dot:
            node.setdefault(section, {})[inner] = value
        elif key in SECTIONS and isinstance(value, Mapping):
            node.setdefault(key, {}).update(value)
        elif key != "name":
            segmenter[key] = value
    return build(METHODS, node, "model")
