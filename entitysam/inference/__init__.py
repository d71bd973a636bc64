"""A video in, entities out: readers, the streaming segmenter, the panoptic merge, writers."""

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    """`entitysam.inference.panoptic` without an import of its own; readers stay free of torch."""
    if name in ("panoptic", "video", "online", "readers", "writers"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
