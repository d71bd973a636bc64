"""Tensor names of EntitySAM's published checkpoints and of the releases of SAM 2.1 and DINOv2, from and to ours.

A name in the table is one tensor; `*` stands for any part of a name. The published EntitySAM checkpoints use SAM 2.1's
names for the parts of SAM 2.
"""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from entitysam.checkpoint.names.table import pattern_of, translate
from entitysam.errors import CheckpointError

# Kinds of state dicts. A release may contain the parts of both models.
OURS, PUBLISHED, SAM2, DINOV2 = "entitysam", "published", "SAM 2.1", "DINOv2"

# Ours, published.
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

# Tensors of the published files that are never used there.
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
# Further tensors of SAM 2.1's release, of parts that EntitySAM replaces or switches off.
UNUSED_SAM2 = [
    "no_obj_ptr",
    "obj_ptr_proj.*",
    "mask_downsample.*",
    "sam_mask_decoder.obj_score_token.weight",
    "sam_mask_decoder.pred_obj_score_head.*",
]
DINOV2_RELEASE = re.compile(r"(cls_token|pos_embed|mask_token|register_tokens|patch_embed\..*|blocks\..*|norm\..*)")

# Our parts that a release contains whole, and those of SAM 2.1 without which an ablation may be built.
RELEASED_PARTS = {
    SAM2: ("dual_encoder.image_encoder.", "memory.", "prompt_generator.prompt_encoder."),
    DINOV2: ("dual_encoder.semantic_encoder.",),
}
OPTIONAL_PARTS = ("memory.attention.", "memory.encoder.", "memory.temporal_code", "prompt_generator.prompt_encoder.")


_TO_PUBLISHED = [(pattern_of(ours), published) for ours, published in TABLE]
_FROM_PUBLISHED = [(pattern_of(published), ours) for ours, published in TABLE]
_UNUSED = [pattern_of(pattern) for pattern in UNUSED]
_UNUSED_SAM2 = [*_UNUSED, *map(pattern_of, UNUSED_SAM2)]


def _is_unused(name: str, patterns: Iterable[re.Pattern[str]] = _UNUSED) -> bool:
    return any(pattern.fullmatch(name) for pattern in patterns)


def published_name(name: str) -> str | None:
    """Our tensor name -> that of the published checkpoints; None for a part that they do not have."""
    return translate(name, _TO_PUBLISHED)


def our_name(name: str) -> str | None:
    """Published or SAM 2.1 tensor name -> ours; None for an unknown name or one that is never used."""
    return None if _is_unused(name) else translate(name, _FROM_PUBLISHED)


def to_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict under the published names, without the tensors that are never used there.

    Raises:
        CheckpointError: a tensor of a part that the published model does not have.
    """
    renamed = {published_name(name): tensor for name, tensor in state.items()}
    if None in renamed:
        foreign = next(name for name in state if published_name(name) is None)
        raise CheckpointError(f"{foreign}: has no place in a published checkpoint")
    return renamed  # type: ignore[return-value]


def kind_of(state: Mapping[str, Tensor]) -> str:
    """OURS, PUBLISHED, "SAM 2.1", "DINOv2", "SAM 2.1 + DINOv2", or "" for anything else."""
    if any(name.startswith(("entity_decoder.", "dual_encoder.")) for name in state):
        return OURS
    if "sam_mask_decoder.queries.weight" in state or "offset_embedding.weight" in state:
        return PUBLISHED
    found = []
    if any(name.startswith(("image_encoder.trunk.", "memory_attention.")) for name in state):
        found.append(SAM2)
    if "cls_token" in state and "patch_embed.proj.weight" in state:
        found.append(DINOV2)
    return " + ".join(found)


def to_ours(state: Mapping[str, Tensor], kind: str) -> tuple[dict[str, Tensor], list[str]]:
    """Translates a published checkpoint or a release.

    Args:
        state: its tensors.
        kind: of `kind_of`, other than OURS.

    Returns:
        tensors under our names, and the unknown names. Tensors that are never used are in neither.
    """
    unused = _UNUSED if kind == PUBLISHED else _UNUSED_SAM2
    translated: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in state.items():
        if DINOV2 in kind and DINOV2_RELEASE.fullmatch(name):
            if name != "mask_token":
                translated[f"dual_encoder.semantic_encoder.trunk.{name}"] = tensor
        elif not _is_unused(name, unused):
            ours = translate(name, _FROM_PUBLISHED)
            if ours is None:
                unknown.append(name)
            else:
                translated[ours] = tensor
    return translated, unknown


def needed_of_release(own: Iterable[str], kind: str) -> set[str]:
    """Names of our tensors that a release has to contain: those of all parts that it releases."""
    prefixes = tuple(prefix for part, released in RELEASED_PARTS.items() if part in kind for prefix in released)
    return {name for name in own if name.startswith(prefixes)}


def absent_parts(own: Iterable[str]) -> tuple[str, ...]:
    """Optional parts of SAM 2.1 that a model with these tensors was built without."""
    names = list(own)
    return tuple(part for part in OPTIONAL_PARTS if not any(name.startswith(part) for name in names))
