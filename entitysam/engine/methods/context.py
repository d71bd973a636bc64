"""What a run gives to the method that it builds."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from entitysam.config import InferenceConfig
from entitysam.engine.build import open_model
from entitysam.engine.build.opening import ENTITY_SAM, SAM2
from entitysam.engine.methods.appearance import build_segmenter
from entitysam.engine.methods.masa import open_masa
from entitysam.errors import ConfigError
from entitysam.inference.segmenter import VideoSegmenter


@dataclass(frozen=True)
class MethodContext:
    """Networks and settings of a run; parts of a method that name their own weights override them.

    Attributes:
        weights: of EntitySAM (or of MASA, for tracking sets): a file, "random", or "".
        model: node of EntitySAM, see `engine.build.open_model`.
        inference: settings of `VideoSegmenter`.
        device: of all networks.
        seed: of random weights.
        reid: weights of MASA, by which entities that return get their first ids; "" = off.
    """

    weights: str = ""
    model: Mapping[str, Any] = field(default_factory=dict)
    inference: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    seed: int = 0
    reid: str = ""

    def entity_sam(self, weights: str = "", model: str = "") -> Any:
        """EntitySAM.

        Args:
            weights: its file; "" = the run's.
            model: its name; "" = the run's model, or the one in the file.

        Raises:
            ConfigError: no weights are named. CheckpointError, FileNotFoundError: they cannot be used.
        """
        file = weights or ("" if model else self.weights)
        if not file and not model:
            raise ConfigError("no weights; give --weights FILE, or --predictions DIR, or --method NAME")
        node: Any = model or ({} if weights else self.model)
        return open_model(node, file or None, device=self.device, kind=ENTITY_SAM, seed=self.seed).model

    def segmenter(self, weights: str = "", model: str = "", **settings: Any) -> VideoSegmenter:
        """EntitySAM with the settings of the run, changed by `settings`.

        Raises:
            ConfigError: an unknown setting, and as `entity_sam`.
        """
        unknown = settings.keys() - {field.name for field in fields(InferenceConfig)}
        if unknown:
            raise ConfigError(f"method.inference.{min(unknown)}: unknown key; see `inference` of --print-config")
        return build_segmenter(self.entity_sam(weights, model), {**self.inference, **settings})

    def sam2(self, node: Mapping[str, Any] | None) -> Any:
        """SAM 2.1.

        Args:
            node: {model: "sam2_small", weights: a file or "random", and keys of the model, e.g. image_size}.

        Raises:
            CheckpointError, FileNotFoundError: no such weights, or others.
        """
        given = dict(node or {})
        model, weights = str(given.pop("model", "")), given.pop("weights", None)
        if not model and not weights:
            model = "sam2_small"
        return open_model(model, weights, device=self.device, overrides=given, kind=SAM2, seed=self.seed).model

    def masa(self, weights: str = "", model: str = "") -> Any:
        """MASA on the run's device; arguments and errors as for `open_masa`."""
        return open_masa(weights, model).to(self.device)
