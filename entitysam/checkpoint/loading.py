"""Loads a state dict into a model, strictly, whatever names its tensors have."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from entitysam.checkpoint.files import inner, read_weights
from entitysam.checkpoint.names import entity_sam, masa, trunk
from entitysam.errors import CheckpointError

UNKNOWN = "unknown"
WHOLE = (entity_sam.OURS, entity_sam.PUBLISHED, masa.OURS, masa.PUBLISHED)  # kinds that contain all parts of a model
HIERA_SIZES = {96: "small", 144: "large", 112: "base+"}  # by width
PUBLISHED_MODELS = {(96, 4): " vits", (144, 8): " vitl"}  # by width of the trunk and depth of the decoder


@dataclass(frozen=True)
class LoadReport:
    """Result of `load_weights`.

    Attributes:
        kind: of the tensor names in the file.
        loaded: number of tensors that were loaded.
        untouched: names of the model's tensors that the file does not contain.
    """

    kind: str
    loaded: int
    untouched: list[str]


def load_weights(model: nn.Module, weights: str | Path | Mapping[str, Any], new_parts: bool = False) -> LoadReport:
    """Loads weights into a model, strictly.

    Args:
        model: an `EntitySAM` or a `MASA`.
        weights: a file (.safetensors, .pt, .pth) or a state dict. For EntitySAM with our names, the published names, or
            those of the releases of SAM 2.1 and/or DINOv2, of which only the parts that they contain are loaded; for MASA
            with our names, the published names, or those of a release of SAM or Grounding-DINO for its backbone. An image
            classifier's release fills the trunk of a `timm_pyramid` image encoder.
        new_parts: the model may have whole parts (`memory.attention`, `entity_decoder.pixel_masks`, ...) of which a file with
            our names contains nothing; they stay as they are. A training stage that adds parts starts so.

    Raises:
        CheckpointError: unreadable file; missing, unknown or misshapen tensors, which are named. The model is unchanged.
        FileNotFoundError: no such file.
    """
    source = "state dict"
    if isinstance(weights, str | Path):
        source, weights = str(weights), read_weights(weights)[0]
    state = {name: tensor for name, tensor in inner(weights).items() if isinstance(tensor, Tensor)}
    if not state:
        raise CheckpointError(f"{source}: holds no tensors")
    kind = kind_of(state)
    if kind == trunk.TIMM and not trunk.has_pyramid(model):
        kind = UNKNOWN
    _check_tensors(state, source)
    translated = _to_ours(model, state, kind, source)
    own = model.state_dict()
    # A whole checkpoint has to contain all tensors of the model, a release those of the parts that it releases.
    if kind in WHOLE:
        needed = set(own)
        if new_parts:
            present = {_part(name) for name in translated}
            needed = {name for name in own if _part(name) in present}
    elif kind in trunk.KINDS:
        needed = {name for name in own if name.startswith(trunk.TRUNK)}
    elif kind in masa.BACKBONES:
        needed = {name for name in own if name.startswith("backbone.")}
    else:
        needed = entity_sam.needed_of_release(own, kind)
        # A release may contain parts that an ablation of the model is built without; they are dropped.
        absent = entity_sam.absent_parts(own)
        translated = {name: tensor for name, tensor in translated.items() if not name.startswith(absent)}
    # Every translated tensor has to be one of the model's, and every needed one has to be there, both in the same shape.
    unknown = sorted(set(translated) - set(own))
    missing = sorted(name for name in needed - set(translated) if not name.endswith("num_batches_tracked"))
    shapes = {
        name: (tuple(tensor.shape), tuple(own[name].shape))
        for name, tensor in translated.items()
        if name in own and tensor.shape != own[name].shape
    }
    if unknown or missing or shapes:
        raise CheckpointError(f"{source}: {_differences(unknown, missing, shapes)}; it seems to be {describe(state)}")
    for name, tensor in translated.items():
        if tensor.is_meta and not own[name].is_meta:
            raise CheckpointError(f"{source}: tensor '{name}' has no data")
    for name, tensor in translated.items():
        own[name].copy_(tensor)
    return LoadReport(kind, len(translated), sorted(set(own) - set(translated)))


def _part(name: str) -> str:
    """The part of a model that a tensor belongs to: the first two levels of its name."""
    return ".".join(name.split(".")[:2])


def kind_of(state: Mapping[str, Tensor]) -> str:
    """Whose names the tensors have; UNKNOWN for a state dict of another model."""
    if entity_sam.kind_of(state) == entity_sam.OURS:
        return entity_sam.OURS
    return masa.kind(state) or entity_sam.kind_of(state) or trunk.kind(state) or UNKNOWN


def _check_tensors(state: Mapping[str, Tensor], source: str) -> None:
    """Refuses tensors that cannot be copied into a model: sparse, quantised or complex ones.

    Raises:
        CheckpointError: names the tensor.
    """
    for name, tensor in state.items():
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_complex():
            raise CheckpointError(f"{source}: tensor '{name}' is not a dense real tensor")


def _to_ours(model: nn.Module, state: Mapping[str, Tensor], kind: str, source: str) -> dict[str, Tensor]:
    """Tensors under our names; tensors that are never used are dropped.

    Raises:
        CheckpointError: unknown names, or a checkpoint of another model.
    """
    if kind in (entity_sam.OURS, masa.OURS):
        return dict(state)
    if kind == UNKNOWN:
        some = ", ".join(name[:60] for name in list(state)[:3])
        raise CheckpointError(
            f"{source}: not an EntitySAM, MASA, SAM, SAM 2.1, DINOv2 or Grounding-DINO checkpoint (it holds {some}, ...)"
        )
    if kind in trunk.KINDS:
        try:
            translated, unknown = trunk.trunk_tensors(model, state)
        except ValueError as error:
            raise CheckpointError(f"{source}: {error}") from error
    else:
        translated, unknown = (masa if kind in masa.FOREIGN else entity_sam).to_ours(state, kind)
    if unknown:
        raise CheckpointError(f"{source}: {_differences(sorted(unknown), [], {})}; it seems to be {describe(state)}")
    return translated


def _differences(unknown: list[str], missing: list[str], shapes: Mapping[str, tuple]) -> str:
    """One line with the first names of each kind of difference."""

    def some(names: Iterable[str]) -> str:
        names = list(names)
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

    parts = []
    if missing:
        parts.append(f"missing {some(missing)}")
    if unknown:
        parts.append(f"unknown {some(unknown)}")
    if shapes:
        parts.append("wrong shape " + some(f"{k} {list(a)} (the model has {list(b)})" for k, (a, b) in shapes.items()))
    return "; ".join(parts)


def describe(state: Mapping[str, Tensor]) -> str:
    """What model a state dict seems to belong to, from its names and widths, as words for a message."""
    kind = kind_of(state)
    patches = (tensor for name, tensor in state.items() if name.endswith("trunk.patch_embed.proj.weight"))
    width = next((len(tensor) for tensor in patches if tensor.ndim == 4 and tensor.shape[-1] == 7), None)  # of Hiera
    size = "" if width is None else f", Hiera width {width} ({HIERA_SIZES.get(width, 'another size')})"
    layers = {m[1] for name in state if (m := re.search(r"(?:transformer|entity_decoder)\.layers\.(\d+)\.", name))}
    if kind in (entity_sam.OURS, entity_sam.PUBLISHED):
        depth = f", decoder depth {len(layers)}" if layers else ""
        return f"an EntitySAM{PUBLISHED_MODELS.get((width or 0, len(layers)), '')} model ({kind} names{size}{depth})"
    if kind in (masa.OURS, masa.PUBLISHED):
        return f"a {kind} model"
    return f"a {kind} release{size}" if kind != UNKNOWN else "something else"
