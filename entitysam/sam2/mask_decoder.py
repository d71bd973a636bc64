"""SAM 2's mask decoder: prompt tokens and one object's conditioned cells -> masks, their IoU, an object score."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from entitysam.layers.attention import Attention
from entitysam.layers.common import MLP
from entitysam.layers.mask_upscaling import MaskUpscaling
from entitysam.layers.two_way import TwoWayLayer

NUM_MASKS = 4  # one for unambiguous prompts, three for ambiguous ones
STABILITY_OFFSET, STABILITY_THRESHOLD = 0.05, 0.98


@dataclass(frozen=True)
class Decoded:
    """Masks of B objects on one frame.

    Attributes:
        mask_logits: [B, M, S/4, S/4]; M is 1, or 3 where the prompt is ambiguous.
        iou: [B, M] predicted IoU in 0..1.
        tokens: [B, M or 1, C] output tokens of the masks; one where one token serves all of them.
        object_score: [B] logit; positive where the object is visible.
    """

    mask_logits: Tensor
    iou: Tensor
    tokens: Tensor
    object_score: Tensor


class MaskDecoder(nn.Module):
    """Two-way transformer, mask head, IoU head and object-score head (SAM 2, section 4, "Mask decoder").

    Args:
        channels: C; depth: layers; heads: of the attentions; hidden: width of the layers' MLPs.
    """

    layers: Any  # of TwoWayLayer
    mask_heads: Any  # of MLP

    def __init__(self, channels: int = 256, depth: int = 2, heads: int = 8, hidden: int = 2048):
        super().__init__()
        self.object_token = nn.Embedding(1, channels)
        self.iou_token = nn.Embedding(1, channels)
        self.mask_tokens = nn.Embedding(NUM_MASKS, channels)
        self.layers = nn.ModuleList(TwoWayLayer(channels, heads, hidden) for _ in range(depth))
        self.final_attn_token_to_image = Attention(channels, heads, channels // 2)
        self.norm_final_attn = nn.LayerNorm(channels)
        self.mask_upscaling = MaskUpscaling(channels)
        self.mask_heads = nn.ModuleList(MLP(channels, channels, channels, channels // 8) for _ in range(NUM_MASKS))
        self.iou_head = MLP(channels, channels, channels, NUM_MASKS, sigmoid=True)
        self.object_head = MLP(channels, channels, channels, 1)

    def forward(
        self,
        cells: Tensor,
        cells_position: Tensor,
        sparse: Tensor,
        dense: Tensor,
        stride8: Tensor,
        stride4: Tensor,
        multimask: bool,
    ) -> Decoded:
        """Decodes B objects of one frame.

        Args:
            cells: [B or 1, hw, C] conditioned cells; cells_position: [hw, C].
            sparse: [B, P + 1, C] and dense: [B or 1, hw or 1, C] of the prompt encoder.
            stride8: [C, S/8, S/8] and stride4: [C, S/4, S/4] maps of the image encoder.
            multimask: return the three masks of an ambiguous prompt instead of one.
        """
        output = torch.cat([self.object_token.weight, self.iou_token.weight, self.mask_tokens.weight])
        position = torch.cat([output.expand(len(sparse), -1, -1), sparse], dim=1)  # [B, 6 + P + 1, C]
        tokens, cells = position, cells + dense
        for index, layer in enumerate(self.layers):
            tokens = layer.self_attend(tokens, position if index else None)
            tokens, cells = layer.cross_attend(tokens, position, cells, cells_position)
        attended = self.final_attn_token_to_image.tokens_to_cells(tokens + position, cells + cells_position, cells)
        tokens = self.norm_final_attn(tokens + attended)
        object_token, iou_token, mask_tokens = tokens[:, 0], tokens[:, 1], tokens[:, 2 : 2 + NUM_MASKS]
        vectors = torch.stack([head(mask_tokens[:, i]) for i, head in enumerate(self.mask_heads)], dim=1)
        logits = self.mask_upscaling(cells.expand(len(tokens), -1, -1), vectors, stride8, stride4)  # [B, 4, S/4, S/4]
        iou = self.iou_head(iou_token)
        score = self.object_head(object_token)[:, 0]
        if multimask:
            return Decoded(logits[:, 1:], iou[:, 1:], mask_tokens[:, 1:], score)
        logits, iou = self._stable(logits, iou)
        return Decoded(logits, iou, mask_tokens[:, :1], score)

    @staticmethod
    def _stable(logits: Tensor, iou: Tensor) -> tuple[Tensor, Tensor]:
        """Mask 0, or where it is unstable the best of the other three: [B, 4, ...] -> [B, 1, ...]."""
        inner = (logits[:, 0] > STABILITY_OFFSET).flatten(1).sum(1).float()
        outer = (logits[:, 0] > -STABILITY_OFFSET).flatten(1).sum(1).float()
        stability = torch.where(outer > 0, inner / outer, 1.0)
        best = 1 + iou[:, 1:].argmax(dim=1)
        chosen = torch.where(stability >= STABILITY_THRESHOLD, 0, best)[:, None]  # [B, 1]
        return logits.gather(1, chosen[..., None, None].expand(-1, 1, *logits.shape[2:])), iou.gather(1, chosen)
