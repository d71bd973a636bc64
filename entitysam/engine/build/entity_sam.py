"""EntitySAM from its config node."""

from collections.abc import Mapping
from typing import Annotated, Any

from annotated_types import Interval
from torch import nn

import entitysam.layers.image_encoder
import entitysam.layers.pyramid_encoder
import entitysam.layers.semantic_encoder
import entitysam.models.grid_prompts  # noqa: F401  (all register their parts)
from entitysam.models.dual_encoder import DualEncoder
from entitysam.models.entity_decoder import EntityDecoder
from entitysam.models.entity_sam import EntitySAM
from entitysam.models.memory import Memory, NoMemory  # noqa: F401  (register their parts)
from entitysam.models.prompt_generator import PromptGenerator
from entitysam.registry import MODELS, Channels, ConfigError, Count, build

MAX_IMAGE_SIZE = 8192


@MODELS.register("entity_sam")
def entity_sam(
    channels: Channels,
    num_entities: Count,
    image_encoder: Mapping[str, Any],
    memory: Mapping[str, Any] | None,
    entity_decoder: Mapping[str, Any],
    semantic_encoder: Mapping[str, Any] | None = None,
    prompt_generator: Mapping[str, Any] | None = None,
    image_size: Annotated[int, Interval(le=MAX_IMAGE_SIZE)] = 1024,
    entity_score: str = "max",
    frozen: list[str] | None = None,
    checkpoint_activations: bool = False,
    min_presence: float = 0.0,
    max_overlap: float = 1.0,
    ids: str = "queries",
) -> EntitySAM:
    """Builds the parts of EntitySAM and passes them to its constructor."""
    image = _encoder(image_encoder, "model.image_encoder", channels)
    semantic = None if semantic_encoder is None else _encoder(semantic_encoder, "model.semantic_encoder", channels)
    dual_encoder = DualEncoder(image, semantic, channels)
    prompts = None
    if prompt_generator is not None:
        on_grid = prompt_generator.get("name") == "grid_prompts"
        enhanced = {} if on_grid else {"enhanced_channels": dual_encoder.enhanced_channels}
        prompts = build(MODELS, prompt_generator, "model.prompt_generator",
                        num_entities=num_entities, channels=channels, **enhanced)  # fmt: skip
    predicts_entity = not isinstance(prompts, PromptGenerator)
    decoder: EntityDecoder = build(MODELS, entity_decoder, "model.entity_decoder", num_entities=num_entities,
                                   channels=channels, predicts_entity=predicts_entity)  # fmt: skip
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
            min_presence=min_presence,
            max_overlap=max_overlap,
            ids=ids,
        )
    except AttributeError as error:
        raise ConfigError(f"model.frozen: {error}") from error


def _encoder(node: Mapping[str, Any], path: str, channels: int) -> nn.Module:
    """Builds an encoder that gives `channels` channels; a pretrained ViT keeps its own width."""
    width = {} if node.get("name") == "timm_vit" else {"channels": channels}
    try:
        return build(MODELS, node, path, **width)
    except ConfigError:
        raise
    except (RuntimeError, TypeError, ValueError) as error:  # unknown to timm, or arguments that it does not take
        raise ConfigError(f"{path}: {error}") from error


def _is_absent(name: str, semantic: nn.Module | None, prompts: nn.Module | None) -> bool:
    """Whether a frozen part belongs to an encoder or prompt generator that this model does not have."""
    return (semantic is None and name.startswith("dual_encoder.semantic_encoder")) or (
        prompts is None and name.startswith("prompt_generator")
    )
