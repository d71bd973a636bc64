"""The composition root: the only place that turns configs and weight files into networks."""

from entitysam.engine.build.configs import model_config
from entitysam.engine.build.network import build_model, pick_device
from entitysam.engine.build.opening import OpenedModel, config_of, load_model, open_model
from entitysam.shipped import ALIASES

__all__ = [
    "ALIASES",
    "OpenedModel",
    "build_model",
    "config_of",
    "load_model",
    "model_config",
    "open_model",
    "pick_device",
]
