"""Tensor names of the SAM 2.1 release files <-> ours; strict loading."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from entitysam.checkpoint import CheckpointError, read_weights
from entitysam.checkpoint.names.table import pattern_of, translate
from entitysam.sam2.model import SAM2

# Left ours, right SAM 2.1's; `*` stands for any part of a name.
TABLE = [
    ("image_encoder.trunk.blocks.*.mlp.fc1.*", "image_encoder.trunk.blocks.*.mlp.layers.0.*"),
    ("image_encoder.trunk.blocks.*.mlp.fc2.*", "image_encoder.trunk.blocks.*.mlp.layers.1.*"),
    ("image_encoder.trunk.*", "image_encoder.trunk.*"),
    ("image_encoder.neck.convs.*.weight", "image_encoder.neck.convs.*.conv.weight"),
    ("image_encoder.neck.convs.*.bias", "image_encoder.neck.convs.*.conv.bias"),
    ("memory_attention.*", "memory_attention.*"),
    ("memory_encoder.fuser.*", "memory_encoder.fuser.layers.*"),
    ("memory_encoder.*", "memory_encoder.*"),
    ("temporal_code", "maskmem_tpos_enc"),
    ("no_memory_embed", "no_mem_embed"),
    ("no_object_pointer", "no_obj_ptr"),
    ("no_object_memory", "no_obj_embed_spatial"),
    ("pointer_head.*", "obj_ptr_proj.*"),
    ("pointer_time.*", "obj_ptr_tpos_proj.*"),
    ("mask_downsample.*", "mask_downsample.*"),
    ("prompt_encoder.position.frequencies", "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"),
    ("prompt_encoder.labels.*", "sam_prompt_encoder.point_embeddings.*"),
    ("prompt_encoder.padding.*", "sam_prompt_encoder.not_a_point_embed.*"),
    ("prompt_encoder.no_mask.*", "sam_prompt_encoder.no_mask_embed.*"),
    ("prompt_encoder.mask_downscaling.*", "sam_prompt_encoder.mask_downscaling.*"),
    ("mask_decoder.object_token.*", "sam_mask_decoder.obj_score_token.*"),
    ("mask_decoder.iou_token.*", "sam_mask_decoder.iou_token.*"),
    ("mask_decoder.mask_tokens.*", "sam_mask_decoder.mask_tokens.*"),
    ("mask_decoder.mask_upscaling.conv_s0.*", "sam_mask_decoder.conv_s0.*"),
    ("mask_decoder.mask_upscaling.conv_s1.*", "sam_mask_decoder.conv_s1.*"),
    ("mask_decoder.mask_upscaling.upscale1.*", "sam_mask_decoder.output_upscaling.0.*"),
    ("mask_decoder.mask_upscaling.norm.*", "sam_mask_decoder.output_upscaling.1.*"),
    ("mask_decoder.mask_upscaling.upscale2.*", "sam_mask_decoder.output_upscaling.3.*"),
    ("mask_decoder.mask_heads.*", "sam_mask_decoder.output_hypernetworks_mlps.*"),
    ("mask_decoder.iou_head.*", "sam_mask_decoder.iou_prediction_head.*"),
    ("mask_decoder.object_head.*", "sam_mask_decoder.pred_obj_score_head.*"),
    ("mask_decoder.layers.*", "sam_mask_decoder.transformer.layers.*"),
    ("mask_decoder.final_attn_token_to_image.*", "sam_mask_decoder.transformer.final_attn_token_to_image.*"),
    ("mask_decoder.norm_final_attn.*", "sam_mask_decoder.transformer.norm_final_attn.*"),
]
UNUSED = ["no_mem_pos_enc"]  # in the release files, never read by SAM 2.1
FROM_RELEASE = [(pattern_of(release), ours) for ours, release in TABLE]


SIZES = {(96, 12): "tiny", (96, 16): "small", (112, 24): "base_plus", (144, 48): "large"}  # width, blocks of the trunk


def release_size(state: Mapping[str, Any]) -> str | None:
    """Size of a whole SAM 2.1 release: "tiny", "small", "base_plus" or "large"; None for any other state dict."""
    patch = state.get("image_encoder.trunk.patch_embed.proj.weight")
    if patch is None or "sam_mask_decoder.mask_tokens.weight" not in state or "obj_ptr_tpos_proj.weight" not in state:
        return None
    if "sam_mask_decoder.queries.weight" in state:  # published EntitySAM keeps SAM 2's names
        return None
    blocks = {name.split(".")[3] for name in state if name.startswith("image_encoder.trunk.blocks.")}
    return SIZES.get((len(patch), len(blocks)))


def load_sam2(model: SAM2, path: str | Path) -> None:
    """Loads a SAM 2.1 release file, or our own, strictly.

    Raises:
        FileNotFoundError, CheckpointError: no such file; unreadable; missing, unknown or misshapen tensors, named.
    """
    state, _ = read_weights(path)
    own = model.state_dict()
    if "mask_decoder.object_token.weight" not in state:
        state = from_release(state, str(path))
    problems = [f"missing {name}" for name in own if name not in state]
    problems += [f"unknown {name}" for name in state if name not in own]
    problems += [
        f"wrong shape {name} {list(state[name].shape)} (the model has {list(own[name].shape)})"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(f"{path}: {'; '.join(problems[:3])}{more}")
    model.load_state_dict(state)


def from_release(state: dict, source: str) -> dict:
    """Tensors under SAM 2.1's names -> under ours.

    Raises:
        CheckpointError: an unknown name, or an EntitySAM file, which lacks SAM 2's mask decoder.
    """
    if "sam_mask_decoder.queries.weight" in state or "entity_decoder.mask_queries.weight" in state:
        raise CheckpointError(
            f"{source}: an EntitySAM file, which lacks SAM 2's mask decoder and object pointers; "
            "prompts need a SAM 2.1 release file (sam2.1_hiera_*.pt)"
        )
    renamed = {}
    for name, tensor in state.items():
        if name in UNUSED:
            continue
        ours = translate(name, FROM_RELEASE)
        if ours is None:
            raise CheckpointError(f"{source}: not a SAM 2.1 file (it holds {name})")
        renamed[ours] = tensor
    return renamed
