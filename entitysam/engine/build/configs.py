"""Config nodes of the models below `configs/model`."""

from collections.abc import Mapping
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf

from entitysam.errors import ConfigError
from entitysam.shipped import check_model_name, shipped_folder


def model_config(name: str, **overrides: Any) -> dict[str, Any]:
    """The config node of a model, with overrides merged in.

    Args:
        name: "tiny", "vits", "vitl" (or "vit-s", "vit-l"), "masa_tiny", ...
        overrides: keys of the node, nested ones as dicts: `image_size=256`, `entity_decoder={"depth": 6}`. A part with
            another `name` replaces the former part with all its keys.

    Raises:
        ConfigError: unknown model or key.
    """
    name = check_model_name(name)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(shipped_folder("configs").resolve()), version_base="1.3"):
            node = compose(None, [f"+model={name}"]).model
    except HydraException as error:
        raise ConfigError(f"model '{name}': {error}") from error
    return merged(plain(node), plain(overrides))


def plain(node: Any) -> dict[str, Any]:
    """A config node, or a mapping that contains config nodes, as plain Python."""
    return OmegaConf.to_container(OmegaConf.create(node), resolve=True)  # type: ignore[return-value]


def merged(node: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A plain node with overrides; a part with another `name` is replaced, not merged."""
    result = dict(node)
    for key, value in overrides.items():
        former = result.get(key)
        if (
            isinstance(former, Mapping)
            and isinstance(value, Mapping)
            and value.get("name", former.get("name")) == former.get("name")
        ):
            value = merged(former, value)
        result[key] = value
    return result
