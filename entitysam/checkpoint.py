"""Weights in and out: one table of names, strict loading, safetensors with the config inside, the hub.

A name in the table stands for one tensor, `*` for any part of a name. Left ours, right that of the published
EntitySAM checkpoints, which share SAM 2.1's names where the parts are SAM 2's.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from entitysam import checkpoint_masa as masa_names
from entitysam import checkpoint_trunk
from entitysam.errors import CheckpointError as CheckpointError

TABLE = [
    ("dual_encoder.image_encoder.trunk.blocks.*.mlp.fc1.*", "image_encoder.trunk.blocks.*.mlp.layers.0.*"),
    ("dual_encoder.image_encoder.trunk.blocks.*.mlp.fc2.*", "image_encoder.trunk.blocks.*.mlp.layers.1.*"),
    ("dual_encoder.image_encoder.trunk.*", "image_encoder.trunk.*"),
    ("dual_encoder.image_encoder.neck.convs.*.weight", "image_encoder.neck.convs.*.conv.weight"),
    ("dual_encoder.image_encoder.neck.convs.*.bias", "image_encoder.neck.convs.*.conv.bias"),
    ("dual_encoder.semantic_encoder.trunk.*", "dinov2_feature_extractor.*"),
    ("dual_encoder.semantic_projector.*", "dinov2_projector.*"),
    ("dual_encoder.fusion.*", "backbone_feature_enhancement.*"),
    ("memory.attention.*", "memory_attention.*"),
    ("memory.encoder.fuser.*", "memory_encoder.fuser.layers.*"),
    ("memory.encoder.*", "memory_encoder.*"),
    ("memory.temporal_code", "maskmem_tpos_enc"),
    ("memory.no_memory_embed", "no_mem_embed"),
    ("prompt_generator.prompt_encoder.position.frequencies", "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"),
    ("prompt_generator.prompt_encoder.positive.weight", "sam_prompt_encoder.point_embeddings.1.weight"),
    ("prompt_generator.prompt_encoder.padding.weight", "sam_prompt_encoder.not_a_point_embed.weight"),
    ("prompt_generator.prompt_encoder.no_mask.weight", "sam_prompt_encoder.no_mask_embed.weight"),
    ("prompt_generator.point_attention.*", "point_sampler_net.*"),
    ("prompt_generator.point_head.*", "point_sampler_num.*"),
    ("prompt_generator.prompt_queries.*", "offset_embedding.*"),
    ("prompt_generator.prompt_attention.*", "offset_attention.*"),
    ("prompt_generator.entity_head.*", "offset_cls.*"),
    ("prompt_generator.offset_head.*", "offset_fc.*"),
    ("entity_decoder.mask_queries.*", "sam_mask_decoder.queries.*"),
    ("entity_decoder.iou_queries.*", "sam_mask_decoder.iou_queries.*"),
    ("entity_decoder.mask_upscaling.conv_s0.*", "sam_mask_decoder.conv_s0.*"),
    ("entity_decoder.mask_upscaling.conv_s1.*", "sam_mask_decoder.conv_s1.*"),
    ("entity_decoder.mask_upscaling.upscale1.*", "sam_mask_decoder.output_upscaling.0.*"),
    ("entity_decoder.mask_upscaling.norm.*", "sam_mask_decoder.output_upscaling.1.*"),
    ("entity_decoder.mask_upscaling.upscale2.*", "sam_mask_decoder.output_upscaling.3.*"),
    ("entity_decoder.mask_head.*", "sam_mask_decoder.output_hypernetworks_mlps.0.*"),
    ("entity_decoder.iou_head.*", "sam_mask_decoder.iou_prediction_head.*"),
    ("entity_decoder.layers.*", "sam_mask_decoder.transformer.layers.*"),
    ("entity_decoder.final_attn_token_to_image.*", "sam_mask_decoder.transformer.final_attn_token_to_image.*"),
    ("entity_decoder.norm_final_attn.*", "sam_mask_decoder.transformer.norm_final_attn.*"),
]  # fmt: skip

# In the published files, and never used there.
UNUSED = [
    "no_mem_pos_enc",
    "no_obj_embed_spatial",
    "obj_ptr_tpos_proj.*",
    "sam_prompt_encoder.point_embeddings.[023].weight",
    "sam_prompt_encoder.mask_downscaling.*",
    "sam_mask_decoder.iou_token.weight",
    "sam_mask_decoder.mask_tokens.weight",
    "sam_mask_decoder.output_hypernetworks_mlps.[123].*",
    "sam_mask_decoder.cls_prediction_head.*",
    "dinov2_feature_extractor.mask_token",
]
# In SAM 2.1's release besides, for parts that EntitySAM replaces or switches off.
UNUSED_SAM2 = [
    "no_obj_ptr",
    "obj_ptr_proj.*",
    "mask_downsample.*",
    "sam_mask_decoder.obj_score_token.weight",
    "sam_mask_decoder.pred_obj_score_head.*",
]
DINOV2_RELEASE = re.compile(r"(cls_token|pos_embed|mask_token|register_tokens|patch_embed\..*|blocks\..*|norm\..*)")


@dataclass(frozen=True)
class LoadReport:
    """What `load_weights` did: the kind of names found, tensors loaded, and the model's tensors left as they were."""

    kind: str
    loaded: int
    untouched: list[str]


def _regex(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(r"\*", "(.+)").replace(r"\[", "[").replace(r"\]", "]"))


def _translate(name: str, table: Iterable[tuple[re.Pattern[str], str]]) -> str | None:
    for pattern, target in table:
        match = pattern.fullmatch(name)
        if match:
            for part in match.groups():
                target = target.replace("*", part, 1)
            return target
    return None


_TO_PUBLISHED = [(_regex(ours), published) for ours, published in TABLE]
_FROM_PUBLISHED = [(_regex(published), ours) for ours, published in TABLE]
_UNUSED = [_regex(pattern) for pattern in UNUSED]
_UNUSED_SAM2 = [*_UNUSED, *map(_regex, UNUSED_SAM2)]


def published_name(name: str) -> str | None:
    """Our tensor name -> that of the published checkpoints; None for a part they do not have."""
    return _translate(name, _TO_PUBLISHED)


def our_name(name: str) -> str | None:
    """Published or SAM 2.1 tensor name -> ours; None for one that is unknown or never used."""
    return None if _is_unused(name) else _translate(name, _FROM_PUBLISHED)


def _is_unused(name: str, patterns: Iterable[re.Pattern[str]] = _UNUSED) -> bool:
    return any(pattern.fullmatch(name) for pattern in patterns)


def to_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict under the published names; tensors that are never used there are left out."""
    renamed = {published_name(name): tensor for name, tensor in state.items()}
    if None in renamed:
        foreign = next(name for name in state if published_name(name) is None)
        raise CheckpointError(f"{foreign}: has no place in a published checkpoint")
    return renamed  # type: ignore[return-value]


def load_weights(model: nn.Module, weights: str | Path | Mapping[str, Any]) -> LoadReport:
    """Loads weights into a model, strictly.

    Args:
        model: as `build_model` gives it.
        weights: a file (.safetensors, .pt, .pth) or a state dict, with our names, the published EntitySAM names, or
            those of SAM 2.1 and/or DINOv2 releases (then only the parts that they have are loaded); for MASA likewise
            our names, the published ones, or a release of SAM or Grounding-DINO for its backbone.

    Raises:
        CheckpointError: unreadable file; missing, unknown or misshapen tensors, which are named.
        FileNotFoundError: no such file.
    """
    source = "state dict"
    if isinstance(weights, str | Path):
        source, weights = str(weights), read_weights(weights)[0]
    state = {name: tensor for name, tensor in _inner(weights).items() if isinstance(tensor, Tensor)}
    if not state:
        raise CheckpointError(f"{source}: holds no tensors")
    kind = _kind(state)
    if kind == checkpoint_trunk.TIMM and not checkpoint_trunk.has_pyramid(model):
        kind = "unknown"
    own = model.state_dict()
    needed = set(own)
    if kind in checkpoint_trunk.KINDS:
        translated = _to_trunk(model, state, source)
        needed = {name for name in own if name.startswith(checkpoint_trunk.TRUNK)}
    else:
        translated = _to_ours(state, kind, source)
    if kind in checkpoint_trunk.KINDS:
        pass
    elif kind in masa_names.BACKBONES:
        needed = {name for name in own if name.startswith("backbone.")}
    elif kind not in ("entitysam", "published", masa_names.OURS, masa_names.PUBLISHED):
        needed = _covered_by(own, kind)
        translated = {name: tensor for name, tensor in translated.items() if not name.startswith(_absent_parts(own))}
    unknown = sorted(set(translated) - set(own))
    missing = sorted(name for name in needed - set(translated) if not name.endswith("num_batches_tracked"))
    shapes = {
        k: (tuple(v.shape), tuple(own[k].shape)) for k, v in translated.items() if k in own and v.shape != own[k].shape
    }
    if unknown or missing or shapes:
        raise CheckpointError(f"{source}: {_differences(unknown, missing, shapes)}; it seems to be {describe(state)}")
    for name, tensor in translated.items():
        own[name].copy_(tensor)
    return LoadReport(kind, len(translated), sorted(set(own) - set(translated)))


def _inner(weights: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = weights.get("model", weights.get("state_dict", weights))
    return inner if isinstance(inner, Mapping) else weights


def _kind(state: Mapping[str, Tensor]) -> str:
    if any(name.startswith(("entity_decoder.", "dual_encoder.")) for name in state):
        return "entitysam"
    masa = masa_names.kind(state)
    if masa:
        return masa
    if "sam_mask_decoder.queries.weight" in state or "offset_embedding.weight" in state:
        return "published"
    found = []
    if any(name.startswith(("image_encoder.trunk.", "memory_attention.")) for name in state):
        found.append("SAM 2.1")
    if "cls_token" in state and "patch_embed.proj.weight" in state:
        found.append("DINOv2")
    return " + ".join(found) or checkpoint_trunk.kind(state) or "unknown"


def _to_ours(state: Mapping[str, Tensor], kind: str, source: str) -> dict[str, Tensor]:
    """Translated names; names that nobody uses are dropped, names that nobody knows are an error."""
    if kind in ("entitysam", masa_names.OURS):
        return dict(state)
    if kind in masa_names.FOREIGN:
        translated, unknown = masa_names.to_ours(state, kind)
        _refuse_unknown(unknown, state, source)
        return translated
    if kind == "unknown":
        some = ", ".join(list(state)[:3])
        raise CheckpointError(
            f"{source}: not an EntitySAM, MASA, SAM, SAM 2.1, DINOv2 or Grounding-DINO checkpoint (it holds {some}, ...)"
        )
    unused = _UNUSED if kind == "published" else _UNUSED_SAM2
    translated, unknown = {}, []
    for name, tensor in state.items():
        ours = name
        if "DINOv2" in kind and DINOV2_RELEASE.fullmatch(name):
            if name == "mask_token":
                continue
            ours = f"dual_encoder.semantic_encoder.trunk.{name}"
        elif _is_unused(name, unused):
            continue
        else:
            ours = _translate(name, _FROM_PUBLISHED) or ""
        if ours:
            translated[ours] = tensor
        else:
            unknown.append(name)
    _refuse_unknown(unknown, state, source)
    return translated


def _to_trunk(model: nn.Module, state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Translated names of an image classifier's release, for the trunk of a `timm_pyramid`."""
    try:
        translated, unknown = checkpoint_trunk.trunk_tensors(model, state)
    except ValueError as error:
        raise CheckpointError(f"{source}: {error}") from error
    _refuse_unknown(unknown, state, source)
    return translated


def _refuse_unknown(unknown: list[str], state: Mapping[str, Tensor], source: str) -> None:
    if unknown:
        raise CheckpointError(f"{source}: {_differences(sorted(unknown), [], {})}; it seems to be {describe(state)}")


def _covered_by(own: Mapping[str, Tensor], kind: str) -> set[str]:
    """Which of our tensors a SAM 2.1 and/or DINOv2 release must bring: all of the parts that are theirs."""
    prefixes: tuple[str, ...] = ()
    if "SAM 2.1" in kind:
        prefixes += ("dual_encoder.image_encoder.", "memory.", "prompt_generator.prompt_encoder.")
    if "DINOv2" in kind:
        prefixes += ("dual_encoder.semantic_encoder.",)
    return {name for name in own if name.startswith(prefixes)}


def _absent_parts(own: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Parts of SAM 2.1 that an ablation of the model is built without."""
    optional = ("memory.attention.", "memory.encoder.", "memory.temporal_code", "prompt_generator.prompt_encoder.")
    return tuple(part for part in optional if not any(name.startswith(part) for name in own))


def _differences(unknown: list[str], missing: list[str], shapes: Mapping[str, tuple]) -> str:
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
    """What a state dict seems to be, in words, from its names and widths."""
    kind = _kind(state)
    widths = {96: "small", 144: "large", 112: "base+"}
    trunk = next(
        (t for n, t in state.items() if n.endswith("trunk.patch_embed.proj.weight") and t.shape[-1] == 7), None
    )
    size = "" if trunk is None else f", Hiera width {len(trunk)} ({widths.get(len(trunk), 'another size')})"
    layers = {m[1] for n in state if (m := re.search(r"(?:transformer|entity_decoder)\.layers\.(\d+)\.", n))}
    depth = f", decoder depth {len(layers)}" if layers and kind in ("entitysam", "published") else ""
    if kind in ("entitysam", "published"):
        names = {("96", "4"): " vits", ("144", "8"): " vitl"}
        label = names.get(("" if trunk is None else str(len(trunk)), str(len(layers))), "")
        return f"an EntitySAM{label} model ({kind} names{size}{depth})"
    if kind in (masa_names.OURS, masa_names.PUBLISHED):
        return f"a {kind} model"
    return f"a {kind} release{size}" if kind != "unknown" else "something else"


# Files --------------------------------------------------------------------------------------------------------------


def read_weights(path: str | Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Reads a weight file without ever running code from it.

    Returns:
        the state dict, and the model's config where the file carries one (our own files do).

    Raises:
        FileNotFoundError, CheckpointError.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weight file {path}")
    try:
        if path.suffix == ".safetensors":
            with safetensors.safe_open(str(path), framework="pt") as file:
                config = (file.metadata() or {}).get("config")
            return safetensors.torch.load_file(str(path)), json.loads(config) if config else None
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # every reader has errors of its own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{path}: cannot be read as weights ({reason})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not named tensors")
    config = content.get("config")
    return dict(_inner(content)), config.get("model") if isinstance(config, dict) else None


def save_weights(path: str | Path, model: nn.Module, config: Mapping[str, Any]) -> None:
    """Writes a model as safetensors with its model config inside, so that it can be built again without flags."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    partial = path.with_name(path.name + ".partial")
    # `save_file` would make a file that nobody else may read.
    partial.write_bytes(safetensors.torch.save(state, {"format": "entitysam", "config": json.dumps(config)}))
    partial.replace(path)
