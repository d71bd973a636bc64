"""Reads the `key=value` overrides of a command line: settings of the model and of inference."""

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from entitysam.config import ArithmeticConfig, InferenceConfig
from entitysam.registry import ConfigError
from entitysam.speed import speed_of


def split_overrides(overrides: Sequence[str]) -> tuple[dict[str, Any], DictConfig, DictConfig]:
    """Reads overrides such as `model.entity_decoder.depth=6` and `inference.max_entities=20`.

    Returns:
        the overrides of the model, nested; and the complete `InferenceConfig` and `ArithmeticConfig` with their overrides.

    Raises:
        ConfigError: a key that starts with neither, an unknown key, a value of the wrong type.
    """
    name, sections = "", []
    try:
        given = OmegaConf.from_dotlist(list(overrides))
        unknown = [str(key) for key in given if key not in ("model", "inference", "arithmetic")]
        if unknown:
            starts = "'model.', 'inference.' or 'arithmetic.'"
            raise ConfigError(f"unknown key '{unknown[0]}'; overrides start with {starts}")
        for name, schema in (("inference", InferenceConfig), ("arithmetic", ArithmeticConfig)):
            sections.append(OmegaConf.merge(OmegaConf.structured(schema), given.get(name, {})))
        model = OmegaConf.to_container(given, resolve=True).get("model", {})  # type: ignore[union-attr]
    except OmegaConfBaseException as error:
        key = f"{name}.{error.full_key}: " if error.full_key else ""
        raise ConfigError(key + str(error).splitlines()[0]) from error
    return model, *sections  # type: ignore[return-value]


def read_settings(arguments: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options and `key=value` overrides of a command line; an override wins over the option for the same setting.

    Overrides of `arithmetic` take effect here.

    Returns:
        overrides of the model's config node, and keyword arguments of `VideoSegmenter`.

    Raises:
        ConfigError: see `split_overrides`; a value out of its range.
    """
    model, inference, arithmetic = split_overrides(arguments.overrides)
    if arguments.image_size is not None:
        model.setdefault("image_size", arguments.image_size)
    options = {
        "warmup_frames": getattr(arguments, "warmup_frames", None),
        "score_threshold": getattr(arguments, "threshold", None),
        "amp": arguments.dtype,
        "fast": getattr(arguments, "fast", None),
        "compile": getattr(arguments, "compile", None) or None,
    }
    for key, value in options.items():
        if value is not None and not any(override.startswith(f"inference.{key}=") for override in arguments.overrides):
            inference[key] = value
    if any(override.startswith("arithmetic.") for override in arguments.overrides):
        from entitysam.precision import set_arithmetic  # imports torch, which cheap checks do without

        set_arithmetic(**arithmetic)  # type: ignore[arg-type]
    return model, check(inference)


def check(inference: DictConfig) -> dict[str, Any]:
    """The settings as keyword arguments of `VideoSegmenter`.

    Raises:
        ConfigError: a value out of its range.
    """
    values = {field.name: inference[field.name] for field in dataclasses.fields(InferenceConfig)}
    for key in ("score_threshold", "overlap_threshold", "mask_threshold"):
        if not 0 <= values[key] <= 1:
            raise ConfigError(f"inference.{key}: must be in 0..1, not {values[key]}")
    for key in ("warmup_frames", "max_entities", "hole_area"):
        if values[key] < 0:
            raise ConfigError(f"inference.{key}: must not be negative, not {values[key]}")
    if values["online_window"] < 1:
        raise ConfigError(f"inference.online_window: must be at least 1, not {values['online_window']}")
    speed_of(values["fast"])
    if values["amp"] not in ("fp32", "bf16", "fp16"):
        raise ConfigError(f"inference.amp: fp32, bf16 or fp16, not '{values['amp']}'")
    return values
