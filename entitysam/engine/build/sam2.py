"""SAM 2.1 from its config node."""

from collections.abc import Mapping
from typing import Any

import entitysam.layers.image_encoder  # noqa: F401  (registers its part)
from entitysam.registry import MODELS, ConfigError, build
from entitysam.sam2.model import SAM2


@MODELS.register("sam2")
def sam2(channels: int, image_encoder: Mapping[str, Any], image_size: int = 1024, **arguments: Any) -> SAM2:
    """Builds the image encoder, then SAM 2.1; `arguments` are those of `SAM2`."""
    try:
        encoder = build(MODELS, image_encoder, "model.image_encoder", channels=channels)
        return SAM2(encoder, image_size=image_size, channels=channels, **arguments)
    except (RuntimeError, TypeError) as error:  # a trunk that timm does not know, or an unknown key
        raise ConfigError(f"model: {error}") from error
