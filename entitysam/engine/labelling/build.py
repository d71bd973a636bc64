"""Builds a labeller from a config node."""

from typing import Any

from entitysam.classification import clip  # noqa: F401 - registers itself
from entitysam.classification.labeller import Labeller
from entitysam.classification.labels import Label
from entitysam.classification.visual_prompts import VisualPrompt
from entitysam.classification.vlm import build as vlm_build  # noqa: F401 - registers itself
from entitysam.registry import CLASSIFIERS, ConfigError, build

VISUAL_PROMPT_KEYS = {"kind", "margin", "min_side", "max_side", "jpeg_quality"}


def build_labeller(node: dict[str, Any], path: str, labels: tuple[Label, ...] | None) -> Labeller:
    """A labeller from a config node: `name`, the classifier's keys, `visual_prompt` (keys of `VisualPrompt`), `top_frames`.

    Args:
        node: the config node.
        path: key of the node, for messages.
        labels: the class list; None = free naming.

    Raises:
        ConfigError: unknown name or key, or a value out of its range.
    """
    node = dict(node)
    top_frames, keys = node.pop("top_frames", 1), dict(node.pop("visual_prompt", None) or {})
    unknown = set(keys) - VISUAL_PROMPT_KEYS
    if unknown:
        raise ConfigError(f"{path}.visual_prompt.{min(unknown)}: unknown key")
    visual_prompt = VisualPrompt(**keys)
    classifier = build(CLASSIFIERS, node, path, labels=labels, visual_prompt=visual_prompt)
    return Labeller(classifier, visual_prompt, top_frames)
