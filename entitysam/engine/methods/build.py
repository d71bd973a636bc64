"""Methods by name: NAME[:key=value,...], where NAME is a file of `configs/methods`, a YAML file, or a part of METHODS."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import entitysam.engine.methods.entity_sam
import entitysam.engine.methods.linked
import entitysam.engine.methods.propagation
import entitysam.engine.methods.trivial
import entitysam.engine.methods.videomt  # noqa: F401  (all register their methods)
from entitysam.config import read_shipped, read_yaml
from entitysam.engine.methods.context import MethodContext
from entitysam.engine.methods.frame_masks import build_masks
from entitysam.engine.methods.masa import detections_of_map
from entitysam.io.record_store import file_fingerprint
from entitysam.registry import METHODS, ConfigError, build
from entitysam.settings import parse_value
from entitysam.shipped import TINY, shipped_folder
from entitysam.structures import Detections

FrameDetector = Callable[[np.ndarray], Detections]  # uint8 [H, W, 3] RGB -> detections on the frame

PROPOSALS = ("fast", "entitysam", "esam", "sam")
OF_FRAMES = ("esam", "sam")  # METHODS has them for images; on a video their masks are linked by overlap


def parse_options(text: str) -> tuple[str, dict[str, Any]]:
    """ "deva:settings.clip=5,masks.file=a.json" -> its name and {"settings": {"clip": 5}, "masks": {"file": "a.json"}}.

    Raises:
        ConfigError: an option that is not `key=value`.
    """
    name, _, options = text.partition(":")
    values: dict[str, Any] = {}
    for option in filter(None, options.split(",")):
        key, equals, value = option.partition("=")
        if not equals:
            raise ConfigError(f"{text}: '{option}' is not key=value")
        *parents, last = key.split(".")
        inner = values
        for parent in parents:
            inner = inner.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"{text}: '{parent}' has a value and keys below it")
        inner[last] = parse_value(value)
    return name, values


def method_node(text: str) -> dict[str, Any]:
    """The config node of a method.

    Raises:
        ConfigError: no such file, or an option that is not `key=value`.
    """
    name, options = parse_options(text)
    if name in OF_FRAMES:
        linking: dict[str, Any] = {key: options.pop(key) for key in ("min_iou", "max_gap") if key in options}
        return {"name": "per_frame", "masks": {"name": name, **options}} | linking
    if Path(name).suffix in (".yaml", ".yml"):
        node = read_yaml(name)
    elif (shipped_folder("configs") / "methods" / f"{name}.yaml").is_file():
        node = read_shipped("methods", name)
    elif name in METHODS:
        node = {"name": name}
    else:
        files = (shipped_folder("configs") / "methods").glob("*.yaml")
        known = sorted({*(file.stem for file in files), *(key for key, _ in METHODS), *OF_FRAMES})
        raise ConfigError(f"no method called '{name}'; known: {', '.join(known)}")
    return _merged(node, options)


def _merged(node: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Options over a node; another `name` of a part replaces the part."""
    result = dict(node)
    for key, value in options.items():
        old = result.get(key)
        same = isinstance(old, Mapping) and isinstance(value, Mapping) and value.get("name") in (None, old.get("name"))
        result[key] = _merged(old, value) if same else value  # type: ignore[arg-type]
    return result


def build_method(node: Mapping[str, Any], context: MethodContext) -> Any:
    """A method that segments videos, see `engine.evaluate.loop.VideoMethod`.

    Args:
        node: of `method_node`.
        context: of the run.

    Raises:
        ConfigError: unknown method or key. DataError, CheckpointError, FileNotFoundError: files that cannot be used.
    """
    name = str(node.get("name"))
    accepted = inspect.signature(METHODS.get(name)).parameters if name in METHODS else {}
    return build(METHODS, node, "method", **({"context": context} if "context" in accepted else {}))


def fingerprint(node: Mapping[str, Any]) -> list[Any]:
    """The node, with the files that it names, and the shipped weights of the models: equal for equal predictions."""
    shipped = [str(shipped_folder("checkpoints") / TINY[text]) for text in _texts(node) if text in TINY]
    return [dict(node), [file_fingerprint(file) for file in (*_texts(node), *shipped) if Path(file).exists()]]


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        for value in node.values():
            yield from _texts(value)
    elif isinstance(node, str) and node:
        yield node


def build_proposals(text: str, context: MethodContext) -> FrameDetector:
    """A detector of objects on single frames, for tracking.

    Args:
        text: NAME[:key=value,...]: "esam" and "sam" take the keys of `esam.settings.method_from_options`, "entitysam"
            takes `model` (a name or a weight file; "tiny").
        context: of the run.

    Raises:
        ConfigError: unknown name or key.
    """
    name, options = parse_options(text)
    if name not in PROPOSALS[1:]:
        raise ConfigError(f"proposals: one of {', '.join(PROPOSALS)}, not '{name}'")
    if name == "entitysam":
        unknown = set(options) - {"model"}
        if unknown:
            raise ConfigError(f"proposals entitysam: unknown key '{min(unknown)}'; it takes model")
        options = {"model": str(options.get("model", "tiny"))}
    masks = build_masks({"name": name, **options}, context)

    def detect(frame: np.ndarray) -> Detections:
        return detections_of_map(*masks.start([frame], (frame.shape[0], frame.shape[1]))(0, frame))

    return detect
