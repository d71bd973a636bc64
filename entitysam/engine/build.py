"""The composition root: the only place that turns configs into objects."""

from collections.abc import Mapping
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from torch import nn

import entitysam.engine.build_masa
import entitysam.layers.image_encoder
import entitysam.layers.semantic_encoder  # noqa: F401  (all register their parts)
from entitysam.config import shipped_folder
from entitysam.models.dual_encoder import DualEncoder
from entitysam.models.entity_decoder import EntityDecoder
from entitysam.models.entity_sam import EntitySAM
from entitysam.models.memory import Memory, NoMemory  # noqa: F401  (register their parts)
from entitysam.models.prompt_generator import PromptGenerator  # noqa: F401
from entitysam.registry import MODELS, ConfigError, build

ALIASES = {"vit-s": "vits", "vit-l": "vitl"}


def model_config(name: str, **overrides: Any) -> dict[str, Any]:
    """The config node of a model below `configs/model`, with overrides merged in.

    Args:
        name: "tiny", "vits", "vitl" (or "vit-s", "vit-l").
        overrides: keys of the node, nested ones as dicts: `image_size=256`, `entity_decoder={"depth": 6}`. A part given
            under another `name` replaces the former one with all its keys.

    Raises:
        ConfigError: unknown model or key.
    """
    folder = shipped_folder("configs").resolve()
    name = ALIASES.get(name, name)
    if not (folder / "model" / f"{name}.yaml").is_file():
        kind = name.startswith("masa")  # whoever wants something to segment with is not offered trackers
        names = sorted(path.stem for path in (folder / "model").glob("*.yaml"))
        known = ", ".join(known for known in names if known.startswith("masa") == kind)
        raise ConfigError(f"unknown model '{name}'; known: {known}")
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(folder), version_base="1.3"):
            node = compose(None, [f"+model={name}"]).model
    except HydraException as error:
        raise ConfigError(f"model '{name}': {error}") from error
    return _merged(_plain(node), _plain(overrides))


def _plain(node: Any) -> dict[str, Any]:
    """A config node, or a mapping that holds some, as plain Python."""
    return OmegaConf.to_container(OmegaConf.create(node), resolve=True)  # type: ignore[return-value]


def _merged(node: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(node)
    for key, value in overrides.items():
        former = merged.get(key)
        if (
            isinstance(former, Mapping)
            and isinstance(value, Mapping)
            and value.get("name", former.get("name")) == former.get("name")
        ):
            value = _merged(former, value)
        merged[key] = value
    return merged


def build_model(name_or_config: str | Mapping[str, Any], **overrides: Any) -> EntitySAM:
    """A model with random weights, in eval mode, on the default device.

    Args:
        name_or_config: a name ("tiny", "vits", "vitl") or a whole model node.
        overrides: as in `model_config`.

    Example: `build_model("vits", image_size=256, num_entities=100)`.

    Raises:
        ConfigError: anything that cannot be built, named by its path.
    """
    if isinstance(name_or_config, str):
        node = model_config(name_or_config, **overrides)
    else:
        node = _merged(_plain(name_or_config), _plain(overrides))
    try:
        return build(MODELS, node, "model").eval()
    except ConfigError:
        raise
    except ValueError as error:  # a part refuses one of its arguments, which it names
        raise ConfigError(str(error)) from error


@MODELS.register("entity_sam")
def entity_sam(
    channels: int,
    num_entities: int,
    image_encoder: Mapping[str, Any],
    memory: Mapping[str, Any] | None,
    entity_decoder: Mapping[str, Any],
    semantic_encoder: Mapping[str, Any] | None = None,
    prompt_generator: Mapping[str, Any] | None = None,
    image_size: int = 1024,
    entity_score: str = "max",
    frozen: list[str] | None = None,
    checkpoint_activations: bool = False,
) -> EntitySAM:
    """EntitySAM from its config node: builds the children, then the whole."""
    image = _encoder(image_encoder, "model.image_encoder", channels)
    semantic = None if semantic_encoder is None else _encoder(semantic_encoder, "model.semantic_encoder", channels)
    dual_encoder = DualEncoder(image, semantic, channels)
    prompts = None
    if prompt_generator is not None:
        enhanced = dual_encoder.enhanced_channels
        prompts = build(MODELS, prompt_generator, "model.prompt_generator",
                        num_entities=num_entities, channels=channels, enhanced_channels=enhanced)  # fmt: skip
    decoder: EntityDecoder = build(MODELS, entity_decoder, "model.entity_decoder",
                                   num_entities=num_entities, channels=channels, predicts_entity=prompts is None)  # fmt: skip
    try:
        return EntitySAM(
            dual_encoder,
            build(MODELS, memory or {"name": "no_memory"}, "model.memory", channels=channels),
            prompts,
            decoder,
            image_size=image_size,
            frozen=[name for name in frozen or [] if not _is_absent(name, semantic, prompts)],
            entity_score=entity_score,
            checkpoint_activations=checkpoint_activations,
        )
    except AttributeError as error:
        raise ConfigError(f"model.frozen: {error}") from error


def _encoder(node: Mapping[str, Any], path: str, channels: int) -> nn.Module:
    """An encoder for maps of `channels` channels; a pretrained ViT keeps a width of its own."""
    width = {} if node.get("name") == "timm_vit" else {"channels": channels}
    try:
        return build(MODELS, node, path, **width)
    except (RuntimeError, TypeError) as error:  # a trunk that timm does not know, or arguments it does not take
        raise ConfigError(f"{path}: {error}") from error


def _is_absent(name: str, semantic: nn.Module | None, prompts: nn.Module | None) -> bool:
    """A frozen part that this model was built without."""
    return (semantic is None and name.startswith("dual_encoder.semantic_encoder")) or (
        prompts is None and name.startswith("prompt_generator")
    )


def pick_device(device: str = "auto") -> torch.device:
    """ "auto" -> CUDA, MPS or CPU, whichever is there first; else the one named.

    Raises:
        ConfigError: a device that is not there.
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
