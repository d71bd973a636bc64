"""Pretrained architectures of timm, built by name from a config that may come from a file of somebody else."""

from collections.abc import Mapping
from typing import Any

import timm

MAX_DEPTH, MAX_WIDTH = 100, 4096
DEPTHS = ("depth", "depths", "stages", "layers")  # arguments of timm's models that count layers
# Arguments with which timm would open a file or ask a server, or by which a config would load weights by itself.
REFUSED = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "num_classes")


def create_trunk(name: str, arguments: Mapping[str, Any] | None = None) -> Any:
    """A timm model with random weights and without classifier; arguments and errors as of `check_trunk`."""
    return timm.create_model(name, pretrained=False, num_classes=0, **check_trunk(name, arguments))


def check_trunk(name: str, arguments: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Arguments of a timm model from a config.

    Args:
        name: of an architecture that timm contains; names with a source ("hf-hub:...", "local-dir:...") are refused, so
            that a config never opens a file or a connection.
        arguments: further arguments of the timm model; lists become tuples, as timm expects them.

    Returns:
        the arguments for timm.

    Raises:
        ValueError: an unknown name, a refused argument, or a size out of range.
    """
    arguments = {str(key): tuple(v) if isinstance(v, list) else v for key, v in (arguments or {}).items()}
    if ":" in name or "/" in name or not timm.is_model(name):
        raise ValueError(f"trunk: '{name[:80]}' is no built-in architecture of timm")
    for key, value in arguments.items():
        if key in REFUSED:
            raise ValueError(f"trunk_args.{key}: not allowed in a config")
        limit = MAX_DEPTH if key in DEPTHS else MAX_WIDTH
        numbers = [n for n in (value if isinstance(value, tuple) else (value,)) if isinstance(n, int | float)]
        if any(not 0 <= number <= limit for number in numbers):
            raise ValueError(f"trunk_args.{key}: must be in 0..{limit}, not {value}")
    return arguments
