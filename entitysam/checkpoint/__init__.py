"""Reading, loading and writing weights: our own files, published checkpoints and releases of their parts."""

from entitysam.checkpoint.files import read_weights, save_weights
from entitysam.checkpoint.loading import LoadReport, describe, load_weights
from entitysam.checkpoint.names.entity_sam import our_name, published_name, to_published
from entitysam.errors import CheckpointError

__all__ = [
    "CheckpointError",
    "LoadReport",
    "describe",
    "load_weights",
    "our_name",
    "published_name",
    "read_weights",
    "save_weights",
    "to_published",
]
