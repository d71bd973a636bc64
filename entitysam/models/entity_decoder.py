"""EntityDecoder: self-attention among entities, then cross-attention of each to its own map (section 3.3.3, Figure 2b)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from entitysam.layers.attention import Attention
from entitysam.layers.common import MLP
from entitysam.layers.mask_upscaling import MaskUpscaling
from entitysam.layers.two_way import TwoWayLayer
from entitysam.models.dual_encoder import ImageFeatures
from entitysam.models.prompt_generator import Prompts
from entitysam.models.score_head import MaskAwareScore
from entitysam.registry import MODELS, Count, Depth, Width


class PixelMasks(nn.Module):
    """Masks from a per-pixel embedding that all entities share (Mask2Former, Cheng et al. 2022), added to the upscaled ones.

    The embedding has all C channels at stride 4, where `MaskUpscaling` has C/8, and costs one matrix product for all
    entities. The vectors start at zero, so that it may be added to a trained decoder.

    Args:
        channels: C.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.pixels = MLP(channels, channels, channels)
        self.vectors = MLP(channels, channels, channels)
        for parameter in self.vectors.layers[-1].parameters():
            nn.init.zeros_(parameter)

    def embed(self, features: ImageFeatures) -> Tensor:
        """The embedding [.., (S/4)^2, C] of a frame."""
        return self.pixels(features.stride4.flatten(-2).transpose(-2, -1))

    def forward(self, mask_token: Tensor, embedding: Tensor) -> Tensor:
        """mask_token [.., Q, C], embedding [.., (S/4)^2, C] -> mask logits [.., Q, S/4, S/4]."""
        logits = torch.matmul(self.vectors(mask_token), embedding.transpose(-2, -1)) * embedding.shape[-1] ** -0.5
        return logits.unflatten(-1, (round(embedding.shape[-2] ** 0.5), -1))


@dataclass(frozen=True)
class DecoderOutput:
    """Output of the decoder for a frame; leading dimensions `..` are batch dimensions.

    Attributes:
        mask_logits: [.., Q, S/4, S/4].
        iou: [.., Q] in 0..1.
        entity_logits: [.., Q, 2]; None where the PromptGenerator predicts them.
        layer_masks: [.., L, Q, S/4, S/4] mask logits after the layers before the last; None without `deep_supervision`, and
            outside training.
        embeddings: [.., Q, C] mask token of each entity after the last layer.
    """

    mask_logits: Tensor
    iou: Tensor
    entity_logits: Tensor | None = None
    layer_masks: Tensor | None = None
    embeddings: Tensor | None = None


@MODELS.register("entity_decoder")
class EntityDecoder(nn.Module):
    """Predicts a mask and its IoU for every entity from mask, IoU and prompt tokens.

    Args:
        num_entities: Q.
        channels: C.
        depth: number of layers (4 for vits, 8 for vitl).
        heads: attention heads.
        hidden: width of the layers' MLPs.
        queries: "separate" mask and IoU queries, or "shared" (Table 6).
        own_prompts: False is quirk 1: an entity receives the prompt tokens of other entities.
        predicts_entity: without a PromptGenerator the IoU token also predicts the entity logits (Table 6, first row).
        deep_supervision: in training, also predict masks after the layers before the last (as DETR and Mask2Former do).
        pixel_masks: add masks from a per-pixel embedding; see `PixelMasks`.
        mask_aware_score: the IoU token sees the masks before it is read out; see `MaskAwareScore`.

    Raises:
        ValueError: unknown `queries`.
    """

    layers: Any  # of TwoWayLayer

    def __init__(
        self,
        num_entities: int,
        channels: int,
        depth: Depth = 4,
        heads: Count = 8,
        hidden: Width = 2048,
        queries: str = "separate",
        own_prompts: bool = False,
        predicts_entity: bool = False,
        deep_supervision: bool = False,
        mask_aware_score: bool = False,
        pixel_masks: bool = False,
    ):
        super().__init__()
        if queries not in ("separate", "shared"):
            raise ValueError(f"model.entity_decoder.queries: 'separate' or 'shared', not '{queries}'")
        self.mask_queries = nn.Embedding(num_entities, channels)
        self.iou_queries = nn.Embedding(num_entities, channels) if queries == "separate" else None
        self.layers = nn.ModuleList(TwoWayLayer(channels, heads, hidden) for _ in range(depth))
        # The first layer has no residual path: with random weights every token would become nearly the mean of all.
        self.layers[0].self_attn.init_near_identity()
        self.final_attn_token_to_image = Attention(channels, heads, channels // 2)
        self.norm_final_attn = nn.LayerNorm(channels)
        self.mask_upscaling = MaskUpscaling(channels)
        self.mask_head = MLP(channels, channels, channels, channels // 8)
        self.iou_head = MLP(channels, channels, channels, 4, sigmoid=True)  # SAM's head; only output 0 is used
        self.entity_head = MLP(channels, channels, channels, 2) if predicts_entity else None
        self.own_prompts = own_prompts
        self.deep_supervision = deep_supervision
        self.score = MaskAwareScore(channels, heads) if mask_aware_score else None
        self.pixel_masks = PixelMasks(channels) if pixel_masks else None

    def forward(
        self, image_embedding: Tensor, image_position: Tensor, prompts: Prompts | None, features: ImageFeatures
    ) -> DecoderOutput:
        """Decodes one frame, or a batch of frames in the leading dimensions.

        Args:
            image_embedding: [.., Q or 1, hw, C] fused cells.
            image_position: [hw, C] position code of the cells.
            prompts: output of the PromptGenerator; None without one.
            features: of the frame, for the high-resolution maps.
        """
        position = self._tokens(prompts).expand(*image_embedding.shape[:-3], -1, -1, -1)  # [.., K, Q, C]
        tokens = position
        cells = image_embedding if prompts is None else image_embedding + prompts.dense
        own_position = position.transpose(-3, -2)  # [.., Q, K, C]
        layer_masks = []
        pixels = None if self.pixel_masks is None else self.pixel_masks.embed(features)
        for depth, layer in enumerate(self.layers):
            # [.., K * Q, C]: the tokens of all entities attend to each other
            flat = layer.self_attend(tokens.flatten(-3, -2), position.flatten(-3, -2) if depth else None)
            tokens = flat.view_as(tokens)
            own, cells = layer.cross_attend(tokens.transpose(-3, -2), own_position, cells, image_position)
            tokens = own.transpose(-3, -2)  # back to [.., K, Q, C]
            if self.deep_supervision and self.training and depth + 1 < len(self.layers):
                layer_masks.append(self._masks(self.norm_final_attn(own[..., 0, :]), cells, features, pixels))
        own = tokens.transpose(-3, -2)
        attended = self.final_attn_token_to_image.tokens_to_cells(own + own_position, cells + image_position, cells)
        own = self.norm_final_attn(own + attended)  # [.., Q, K, C]
        mask_token, iou_token = own[..., 0, :], own[..., 0 if self.iou_queries is None else 1, :]
        mask_logits = self._masks(mask_token, cells, features, pixels)
        if self.score is not None:
            iou_token = self.score(iou_token, cells, mask_logits)
        entity_logits = None if self.entity_head is None else self.entity_head(iou_token)
        stacked = torch.stack(layer_masks, dim=-4) if layer_masks else None
        return DecoderOutput(mask_logits, self.iou_head(iou_token)[..., 0], entity_logits, stacked, mask_token)

    def _masks(self, mask_token: Tensor, cells: Tensor, features: ImageFeatures, pixels: Tensor | None) -> Tensor:
        """mask_token [.., Q, C], cells [.., Q, hw, C] -> mask logits [.., Q, S/4, S/4]."""
        vectors = self.mask_head(mask_token)[..., None, :]  # [.., Q, 1, C/8]: one mask per entity
        masks = self.mask_upscaling(cells, vectors, features.stride8, features.stride4).squeeze(-3)
        return masks if self.pixel_masks is None or pixels is None else masks + self.pixel_masks(mask_token, pixels)

    def _tokens(self, prompts: Prompts | None) -> Tensor:
        """[.., K, Q, C]: mask queries, IoU queries, then the prompt tokens in two groups of Q."""
        groups = [self.mask_queries.weight]
        if self.iou_queries is not None:
            groups.append(self.iou_queries.weight)
        queries = torch.stack(groups)  # [K', Q, C]
        if prompts is None:
            return queries
        # Flattened entity by entity and cut in two halves, entity q receives tokens of entities q//2 and (Q + q)//2 (quirk 1).
        sparse = prompts.sparse.transpose(-3, -2) if self.own_prompts else prompts.sparse
        lead, (num_entities, channels) = sparse.shape[:-3], queries.shape[1:]
        sparse = sparse.reshape(*lead, 2, num_entities, channels).to(queries.dtype)
        return torch.cat([queries.expand(*lead, -1, -1, -1), sparse], dim=-3)
