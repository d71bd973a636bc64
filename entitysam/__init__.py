"""entitysam: segments and tracks every entity of a video, without prompts and without categories."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from entitysam import ops
    from entitysam.bulk.results import open_results
    from entitysam.checkpoint import load_weights
    from entitysam.engine.build import build_model, load_model
    from entitysam.inference.segmenter import VideoSegmenter, segment_video
    from entitysam.models.entity_sam import EntitySAM
    from entitysam.serve.notebook import view

__version__ = "0.1.0"
__all__ = [
    "EntitySAM",
    "VideoSegmenter",
    "build_model",
    "load_model",
    "load_weights",
    "open_results",
    "ops",
    "segment_video",
    "view",
]
_HOME = {
    "EntitySAM": "entitysam.models.entity_sam",
    "VideoSegmenter": "entitysam.inference.segmenter",
    "build_model": "entitysam.engine.build",
    "load_model": "entitysam.engine.build",
    "load_weights": "entitysam.checkpoint",
    "open_results": "entitysam.bulk.results",
    "segment_video": "entitysam.inference.segmenter",
    "view": "entitysam.serve.notebook",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used: torch takes seconds to import, and `entitysam --help` does not need it."""
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in ("ops", "inference"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
