"""Networks from their config nodes, and the device they run on."""

import importlib
from collections.abc import Mapping
from typing import Any

import torch

from entitysam.engine.build.configs import merged, model_config, plain
from entitysam.registry import MODELS, ConfigError, build

MAX_NUMBER, MAX_LIST, MAX_NESTING = 16384, 256, 10  # of the values of a model node

# The module that registers a network and its parts. It is imported when the network is built: EntitySAM without MASA.
BUILDERS = {"entity_sam": "entitysam.engine.build.entity_sam", "masa": "entitysam.engine.build.masa",
            "sam2": "entitysam.engine.build.sam2"}  # fmt: skip


def build_model(name_or_config: str | Mapping[str, Any], **overrides: Any) -> Any:
    """A network with random weights, in eval mode, on the default device.

    Args:
        name_or_config: a name ("tiny", "vits", "vitl", "masa_tiny", ...) or a whole model node.
        overrides: as in `model_config`.

    Returns:
        an `EntitySAM`, a `MASA` or a `SAM2`.

    Example: `build_model("vits", image_size=256, num_entities=100)`.

    Raises:
        ConfigError: a config that cannot be built; the message names the key by its path.
    """
    if isinstance(name_or_config, str):
        node = model_config(name_or_config, **overrides)
    else:
        node = merged(plain(name_or_config), plain(overrides))
    _check_numbers(node, "model")
    for module in [BUILDERS[node["name"]]] if node.get("name") in BUILDERS else BUILDERS.values():
        importlib.import_module(module)
    try:
        return build(MODELS, node, "model").eval()
    except ConfigError:
        raise
    except ValueError as error:  # a part refuses one of its arguments and names it
        raise ConfigError(str(error)) from error
    except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError) as error:  # PyTorch or timm does
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"model: cannot be built ({reason})") from error


def _check_numbers(node: Any, path: str) -> None:
    """Refuses a config, e.g. one in a weight file, whose numbers ask for more than any machine has.

    Raises:
        ConfigError: a number beyond `MAX_NUMBER`, a list beyond `MAX_LIST` or deep nesting; the message names the key.
    """
    if path.count(".") > MAX_NESTING:
        raise ConfigError(f"{path}: nested too deeply")
    if isinstance(node, int | float) and not abs(node) <= MAX_NUMBER:
        raise ConfigError(f"{path}: out of range: {node:.6g}")
    if isinstance(node, Mapping | list):
        if len(node) > MAX_LIST:
            raise ConfigError(f"{path}: {len(node)} values are too many")
        for key, value in node.items() if isinstance(node, Mapping) else enumerate(node):
            _check_numbers(value, f"{path}.{key}")


def pick_device(device: str = "auto") -> torch.device:
    """ "auto" -> CUDA, MPS or CPU, the first that is available; else the named device.

    Raises:
        ConfigError: the device is not available.
    """
    if device == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(name)
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"device '{device}' is not there ({reason})") from error
    return chosen
