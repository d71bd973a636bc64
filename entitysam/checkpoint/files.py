"""Weight files: safetensors with the model's config inside, and PyTorch files, from which no code is ever run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from entitysam.errors import CheckpointError
from entitysam.io.files import make_folder, whole_file


def read_weights(path: str | Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Reads a weight file without running code from it.

    Args:
        path: .safetensors, or a PyTorch file with a state dict, alone or under the key "model" or "state_dict".

    Returns:
        the state dict, and the model's config where the file contains one, as our own files do.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: a file that cannot be read or contains something else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weight file {path}")
    try:
        if path.suffix == ".safetensors":
            with safetensors.safe_open(str(path), framework="pt") as file:
                config = (file.metadata() or {}).get("config")
            content: Any = {"model": safetensors.torch.load_file(str(path))}
            content["config"] = {"model": json.loads(config)} if config else None
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # every reader has errors of its own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{path}: cannot be read as weights ({reason})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not named tensors")
    state = inner(content)
    if not all(isinstance(name, str) for name in state):
        raise CheckpointError(f"{path}: holds tensors whose names are not text")
    run_config = content.get("config")
    config = run_config.get("model") if isinstance(run_config, dict) else None
    if config is not None and not isinstance(config, dict):
        raise CheckpointError(f"{path}: its model config is a {type(config).__name__}, not a mapping")
    return dict(state), config


def inner(weights: Mapping[str, Any]) -> Mapping[str, Any]:
    """The state dict of the content of a file."""
    state = weights.get("model", weights.get("state_dict", weights))
    return state if isinstance(state, Mapping) else weights


def save_weights(path: str | Path, model: nn.Module, config: Mapping[str, Any]) -> None:
    """Writes a model as safetensors with its model config inside, from which it can be built again.

    Args:
        path: of the file; its folder is created.
        model: any network of the project.
        config: its `model` node.

    Raises:
        OutputError: the file cannot be written; the message names it.
    """
    path = Path(path)
    make_folder(path.parent)
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    content = safetensors.torch.save(state, {"format": "entitysam", "config": json.dumps(config)})
    with whole_file(path) as partial:  # `save_file` would create a file that only its owner may read
        partial.write_bytes(content)
