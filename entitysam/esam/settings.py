"""`model` nodes of E-SAM's configs -> an `ESAM`; a wrong key or value is named by its path."""

from collections.abc import Mapping
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from entitysam.esam.mask_generation import MaskGenerationConfig
from entitysam.esam.prompting import PromptingConfig
from entitysam.esam.recovery import RecoveryConfig
from entitysam.esam.refinement import RefinementConfig
from entitysam.esam.sam_backend import RANDOM, sam_segmenter
from entitysam.esam.segmenter import ESAM
from entitysam.esam.superpixels import SuperpixelConfig
from entitysam.registry import METHODS, ConfigError, Registry, build

__all__ = ["RANDOM", "SEGMENTERS", "esam", "method_from_options", "plain_sam", "read_settings"]

Node = Mapping[str, Any]
SettingsT = TypeVar("SettingsT")

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
    """E-SAM from its config node; what a key means and where its default comes from stands in the class named below.

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
    # Read before the network is built: a misspelt key should not cost a download.
    settings: dict[str, Any] = {
        "prompting": read_settings(PromptingConfig, prompting, "model.prompting"),
        "superpixels": read_settings(SuperpixelConfig, superpixels, "model.superpixels"),
        "mask_generation": read_settings(MaskGenerationConfig, mask_generation, "model.mask_generation"),
        "refinement": read_settings(RefinementConfig, refinement, "model.refinement"),
        "recovery": read_settings(RecoveryConfig, recovery, "model.recovery"),
    }
    return ESAM(build(SEGMENTERS, segmenter, "model.segmenter"), **settings, max_pixels=max_pixels)


@METHODS.register("sam")
def plain_sam(**node: Any) -> ESAM:
    """SAM's automatic masks, made disjoint by score: the baseline. Takes the keys of `esam`; the modules are off."""
    off = {"enabled": False}
    sections = {name: {**(node.pop(name, None) or {}), **off} for name in ("mask_generation", "refinement", "recovery")}
    return esam(**node, **sections)


def method_from_options(words: Mapping[str, Any]) -> ESAM:
    """E-SAM or plain SAM from flat keys, as a command line has them.

    Args:
        words: `name` ("esam" or "sam"); keys with a dot are those of a section, e.g. "refinement.tolerance"; the
            others are SAM's: model, weights, device, amp.

    Raises:
        ConfigError: unknown key, wrong type or value.
    """
    segmenter: dict[str, Any] = {"name": "segment_anything"}
    node: dict[str, Any] = {"name": words["name"], "segmenter": segmenter}
    for key, value in words.items():
        section, dot, inner = key.partition(".")
        if dot:
            node.setdefault(section, {})[inner] = value
        elif key != "name":
            segmenter[key] = value
    return build(METHODS, node, "model")


def read_settings(kind: type[SettingsT], node: Node | None, path: str) -> SettingsT:
    """A settings dataclass from a mapping.

    Raises:
        ConfigError: unknown key, wrong type or value, named by its path.
    """
    try:
        merged = OmegaConf.merge(OmegaConf.structured(kind), dict(node or {}))
        return OmegaConf.to_object(merged)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        key = f"{path}.{error.full_key}" if error.full_key else path
        raise ConfigError(f"{key}: {str(error).splitlines()[0]}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}.{error}") from error
