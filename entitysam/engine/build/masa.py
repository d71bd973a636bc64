"""MASA from its config node."""

from collections.abc import Mapping
from typing import Any

import entitysam.masa.backbone  # noqa: F401  (registers its part)
from entitysam.masa.adapter import Adapter, FeaturePyramid, PlainViTPyramid  # noqa: F401  (register their parts)
from entitysam.masa.criterion import MasaCriterion  # noqa: F401
from entitysam.masa.detection_head import DetectionHead
from entitysam.masa.fusion import DeformableFusion  # noqa: F401
from entitysam.masa.model import MASA
from entitysam.masa.track_head import TrackHead
from entitysam.registry import MODELS, ConfigError, build


@MODELS.register("masa")
def masa(
    channels: int,
    strides: list[int],
    roi_levels: int,
    backbone: Mapping[str, Any],
    pyramid: Mapping[str, Any],
    fusion: Mapping[str, Any],
    detection_head: Mapping[str, Any],
    track_head: Mapping[str, Any],
    image_size: int = 1024,
    pad: int = 32,
    frozen: list[str] | None = None,
    num_regions: int = 1000,
    num_samples: int = 512,
) -> MASA:
    """Builds the parts of MASA and passes them to its constructor.

    Args:
        strides: of all levels of the pyramid.
        roi_levels: number of levels, from the finest, that box features are pooled from.
    """
    try:
        features = build(MODELS, backbone, "model.backbone")
    except ConfigError:
        raise
    except (RuntimeError, TypeError, ValueError) as error:  # unknown to timm, or arguments that it does not take
        raise ConfigError(f"model.backbone: {error}") from error
    levels = build(MODELS, pyramid, "model.pyramid", widths=features.widths, channels=channels, num_levels=len(strides))
    blocks = build(MODELS, fusion, "model.fusion", channels=channels)
    detection: DetectionHead = build(MODELS, detection_head, "model.detection_head",
                                     channels=channels, strides=strides, roi_levels=roi_levels)  # fmt: skip
    track: TrackHead = build(MODELS, track_head, "model.track_head", channels=channels, strides=strides[:roi_levels])
    try:
        return MASA(
            *(features, Adapter(levels, blocks), detection, track),
            image_size=image_size,
            pad=pad,
            frozen=frozen or [],
            num_regions=num_regions,
            num_samples=num_samples,
        )
    except AttributeError as error:
        raise ConfigError(f"model.frozen: {error}") from error
