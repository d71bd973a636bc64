"""entitysam: every entity of a video, segmented and tracked, without prompts and without categories."""

from entitysam import ops
from entitysam.checkpoint import load_weights
from entitysam.engine.build import build_model
from entitysam.models.entity_sam import EntitySAM

__version__ = "0.1.0"
__all__ = ["EntitySAM", "build_model", "load_weights", "ops"]
