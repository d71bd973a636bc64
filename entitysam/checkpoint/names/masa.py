"""Tensor names of the published MASA checkpoints (mmdetection's) and of the releases of their backbones -> ours.

Names and shapes are derived from the public configurations and code. `num_batches_tracked` of batch norms and all of the
detector but its backbone are not used.
"""

import re
from collections.abc import Callable, Mapping

from torch import Tensor

OURS, PUBLISHED, SAM, GROUNDING_DINO = "MASA", "published MASA", "SAM", "Grounding-DINO"
BACKBONES = (SAM, GROUNDING_DINO)
FOREIGN = (PUBLISHED, *BACKBONES)

Table = list[tuple[re.Pattern[str], str]]


def _table(*rows: tuple[str, str]) -> Table:
    return [(re.compile(pattern), ours) for pattern, ours in rows]


_SAM_VIT = _table(
    (r"(pos_embed|patch_embed\..*|blocks\.\d+\.(?:norm\d|attn)\..*)", r"backbone.trunk.\1"),
    (r"(blocks\.\d+\.mlp\.)lin([12]\..*)", r"backbone.trunk.\1fc\2"),
)
_SWIN = _table(
    (r"(patch_embed\..*|layers\.\d+\.blocks\..*)", r"backbone.trunk.\1"),
    (r"norm1\.(.*)", r"backbone.norms.0.\1"),
    (r"norm2\.(.*)", r"backbone.norms.1.\1"),
    (r"norm3\.(.*)", r"backbone.norms.2.\1"),
    (r"layers\.0\.(downsample\..*)", r"backbone.trunk.layers.1.\1"),
    (r"layers\.1\.(downsample\..*)", r"backbone.trunk.layers.2.\1"),
    (r"layers\.2\.(downsample\..*)", r"backbone.trunk.layers.3.\1"),
)
_MMDET_SWIN = _table(
    (r"patch_embed\.projection\.(.*)", r"patch_embed.proj.\1"),
    (r"stages(\.\d+\.blocks\.\d+\.)attn\.w_msa\.(.*)", r"layers\1attn.\2"),
    (r"stages(\.\d+\.blocks\.\d+\.)ffn\.layers\.0\.0\.(.*)", r"layers\1mlp.fc1.\2"),
    (r"stages(\.\d+\.blocks\.\d+\.)ffn\.layers\.1\.(.*)", r"layers\1mlp.fc2.\2"),
    (r"stages(\..*)", r"layers\1"),
)
_ADAPTER = _table(
    (r"masa_adapter\.0\.lateral_convs\.(\d+)\.conv\.(.*)", r"pyramid.lateral.\1.conv.\2"),
    (r"masa_adapter\.0\.lateral_convs\.(\d+)\.bn\.(.*)", r"pyramid.lateral.\1.norm.\2"),
    (r"masa_adapter\.0\.fpn_convs\.(\d+)\.conv\.(.*)", r"pyramid.output.\1.conv.\2"),
    (r"masa_adapter\.0\.fpn_convs\.(\d+)\.bn\.(.*)", r"pyramid.output.\1.norm.\2"),
)
_HEADS = _table(
    (r"masa_adapter\.0\.fpn1\.([03])\.(.*)", r"adapter.pyramid.up4.\1.\2"),
    (r"masa_adapter\.0\.fpn1\.1\.ln\.(.*)", r"adapter.pyramid.up4.1.\1"),
    (r"masa_adapter\.0\.fpn2\.0\.(.*)", r"adapter.pyramid.up2.\1"),
    (r"masa_adapter\.1\.dyhead_blocks\.(\d+)\.spatial_conv_offset\.(.*)", r"adapter.fusion.blocks.\1.geometry.\2"),
    (r"masa_adapter\.1\.dyhead_blocks\.(\d+)\.spatial_conv_high\.(.*)", r"adapter.fusion.blocks.\1.coarser.\2"),
    (r"masa_adapter\.1\.dyhead_blocks\.(\d+)\.spatial_conv_mid\.(.*)", r"adapter.fusion.blocks.\1.same.\2"),
    (r"masa_adapter\.1\.dyhead_blocks\.(\d+)\.spatial_conv_low\.(.*)", r"adapter.fusion.blocks.\1.finer.\2"),
    (r"masa_adapter\.1\.dyhead_blocks\.(\d+)\.scale_attn_module\.1\.(.*)", r"adapter.fusion.blocks.\1.scale_attention.\2"),
    (r"masa_adapter\.1\.dyhead_blocks\.(\d+)\.task_attn_module\.(conv[12])\.conv\.(.*)",
     r"adapter.fusion.blocks.\1.task_attention.\2.\3"),
    (r"rpn_head\.rpn_conv\.(.*)", r"detection_head.rpn.head.conv.0.0.\1"),
    (r"rpn_head\.rpn_cls\.(.*)", r"detection_head.rpn.head.cls_logits.\1"),
    (r"rpn_head\.rpn_reg\.(.*)", r"detection_head.rpn.head.bbox_pred.\1"),
    (r"roi_head\.bbox_head\.shared_convs\.(\d+)\.conv\.(.*)", r"detection_head.roi.box_head.convs.\1.conv.\2"),
    (r"roi_head\.bbox_head\.shared_convs\.(\d+)\.bn\.(.*)", r"detection_head.roi.box_head.convs.\1.norm.\2"),
    (r"roi_head\.bbox_head\.shared_fcs\.(\d+)\.(.*)", r"detection_head.roi.box_head.linears.\1.\2"),
    (r"roi_head\.bbox_head\.fc_cls\.(.*)", r"detection_head.roi.box_predictor.classes.\1"),
    (r"roi_head\.bbox_head\.fc_reg\.(.*)", r"detection_head.roi.box_predictor.box.\1"),
    (r"track_head\.embed_head\.convs\.(\d+)\.conv\.(.*)", r"track_head.convs.\1.conv.\2"),
    (r"track_head\.embed_head\.convs\.(\d+)\.gn\.(.*)", r"track_head.convs.\1.norm.\2"),
    (r"track_head\.embed_head\.fcs\.0\.(.*)", r"track_head.hidden.\1"),
    (r"track_head\.embed_head\.fc_embed\.(.*)", r"track_head.embedding.\1"),
    (r"backbone\.(.*)", r"backbone.trunk.\1"),
)  # fmt: skip
MAX_MERGING = 2**26  # elements of a patch merging; Swin-L's largest has 4.7 million
_NEVER_USED = re.compile(r".*\.(relative_position_index|attn_mask)|(image_encoder|detector\.backbone)\.neck\..*")


def kind(state: Mapping[str, Tensor]) -> str:
    """OURS, one of FOREIGN, or "" for anything else."""
    if any(name.startswith("masa_adapter.") for name in state):
        return PUBLISHED
    if any(name.startswith("track_head.") for name in state):
        return OURS
    if "image_encoder.patch_embed.proj.weight" in state and "mask_decoder.iou_token.weight" in state:
        return SAM
    return GROUNDING_DINO if any(re.match(r"(module\.)?backbone\.0\.patch_embed\.", name) for name in state) else ""


def to_ours(state: Mapping[str, Tensor], source: str) -> tuple[dict[str, Tensor], list[str]]:
    """Translates a checkpoint.

    Args:
        state: its tensors.
        source: one of FOREIGN.

    Returns:
        tensors under our names, and the unknown names. Tensors that are never used are in neither.
    """
    rename: Callable[[str, bool], str | None] = {
        PUBLISHED: _published_name,
        SAM: lambda name, _: _sam_name(name),
        GROUNDING_DINO: lambda name, _: _grounding_dino_name(name),
    }[source]
    plain_vit = "masa_adapter.0.fpn1.0.weight" in state
    translated: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in state.items():
        ours = "" if _NEVER_USED.fullmatch(name) else rename(name, plain_vit)
        if ours is None:
            unknown.append(name)
        elif ours:
            reordered = source == PUBLISHED and ".downsample." in ours and "layers." in ours
            translated[ours] = _timm_order(tensor) if reordered else tensor
    return translated, unknown


def _published_name(name: str, plain_vit: bool) -> str | None:
    """Ours; "" for a part that is not used, None for an unknown name."""
    if name.startswith("detector.backbone."):
        inner = name.removeprefix("detector.backbone.")
        return _translate(inner, _SAM_VIT) if plain_vit else _translate(_translate(inner, _MMDET_SWIN) or inner, _SWIN)
    if name.startswith(("detector.", "data_preprocessor.")):
        return ""
    adapted = _translate(name, _ADAPTER)
    if adapted is not None:
        return f"adapter.pyramid.{adapted}" if plain_vit else f"adapter.{adapted}"
    return _translate(name, _HEADS)


def _sam_name(name: str) -> str | None:
    return _translate(name.removeprefix("image_encoder."), _SAM_VIT) if name.startswith("image_encoder.") else ""


def _grounding_dino_name(name: str) -> str | None:
    match = re.fullmatch(r"(?:module\.)?backbone\.0\.(.*)", name)
    return _translate(match[1], _SWIN) if match else ""


def _translate(name: str, table: Table) -> str | None:
    for pattern, ours in table:
        match = pattern.fullmatch(name)
        if match:
            return match.expand(ours)
    return None


def _timm_order(tensor: Tensor) -> Tensor:
    """The inputs of Swin's patch merging in Swin's order.

    mmdetection concatenates the 2 x 2 merged cells with the cell as the last index, row by row; Swin with the cell as the
    first index, column by column.

    Args:
        tensor: weight [C', 4 C] or norm [4 C]; returned as it is if it has another shape or is larger than any of them,
            which loading refuses (an expanded tensor of a small file can stand for terabytes).
    """
    if tensor.ndim not in (1, 2) or tensor.shape[-1] % 4 or tensor.numel() > MAX_MERGING:
        return tensor
    width = tensor.shape[-1]
    cells = tensor.reshape(-1, width // 4, 4).transpose(1, 2)[:, [0, 2, 1, 3]]  # [.., C, 4] -> [.., 4, C], reordered
    return cells.reshape(tensor.shape)
