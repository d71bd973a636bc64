"""EntityDecoder: entities talk to each other, then each looks at its own map (paper section 3.3.3, Figure 2b)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from entitysam.layers.attention import Attention
from entitysam.layers.common import MLP
from entitysam.models.dual_encoder import ImageFeatures
from entitysam.models.prompt_generator import Prompts
from entitysam.registry import MODELS


class EntityDecoderLayer(nn.Module):
    """Self-attention over all tokens of all entities; then, entity by entity, tokens <-> image (supplement, Algorithm 1)."""

    def __init__(self, channels: int, heads: int, hidden: int):
        super().__init__()
        self.self_attn = Attention(channels, heads)
        self.norm1 = nn.LayerNorm(channels)
        self.cross_attn_token_to_image = Attention(channels, heads, channels // 2)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = MLP(channels, hidden, channels)
        self.norm3 = nn.LayerNorm(channels)
        self.cross_attn_image_to_token = Attention(channels, heads, channels // 2)
        self.norm4 = nn.LayerNorm(channels)

    def talk(self, tokens: Tensor, position: Tensor | None) -> Tensor:
        """Among entities: tokens [K, Q, C]. The first layer has no position and replaces the tokens."""
        flat = tokens.flatten(0, 1)
        if position is None:
            flat = self.self_attn(flat, flat, flat)
        else:
            placed = flat + position.flatten(0, 1)
            flat = flat + self.self_attn(placed, placed, flat)
        return self.norm1(flat).view_as(tokens)

    def look(self, tokens: Tensor, position: Tensor, cells: Tensor, cells_position: Tensor) -> tuple[Tensor, Tensor]:
        """Each entity and its map: tokens, position [Q, K, C], cells [Q or 1, hw, C], cells_position [hw, C]."""
        placed_cells = cells + cells_position
        tokens = tokens + self.cross_attn_token_to_image.tokens_to_cells(tokens + position, placed_cells, cells)
        tokens = self.norm2(tokens)
        tokens = self.norm3(tokens + self.mlp(tokens))
        cells = cells + self.cross_attn_image_to_token.cells_to_tokens(placed_cells, tokens + position, tokens)
        return tokens, self.norm4(cells)


class MaskUpscaling(nn.Module):
    """Cells -> per-pixel embeddings at stride 4, and their dot product with one vector per entity.

    A transposed convolution of kernel and stride 2 is a linear map of every cell to its four children. Children stay
    beside their parent all the way to the logits, so that nothing but one channel is ever shuffled into an image.
    """

    group = 10  # entities at a time: their embeddings at stride 4 are the decoder's largest activations

    def __init__(self, channels: int):
        super().__init__()
        self.conv_s1 = nn.Conv2d(channels, channels // 4, 1)
        self.conv_s0 = nn.Conv2d(channels, channels // 8, 1)
        self.upscale1 = nn.ConvTranspose2d(channels, channels // 4, kernel_size=2, stride=2)
        self.norm = nn.LayerNorm(channels // 4, eps=1e-6)
        self.upscale2 = nn.ConvTranspose2d(channels // 4, channels // 8, kernel_size=2, stride=2)

    def forward(self, cells: Tensor, vectors: Tensor, features: ImageFeatures) -> Tensor:
        """cells [Q, hw, C], vectors [Q, C / 8] -> mask logits [Q, S/4, S/4]."""
        size = features.size
        stride8 = self.conv_s1(features.stride8[None])[0]
        stride4 = self.conv_s0(features.stride4[None])[0]
        # [C/4, 2h, 2w] -> [hw, 4, C/4] and [C/8, 4h, 4w] -> [hw, 4, 4, C/8]: children beside their parent.
        stride8 = stride8.view(-1, size, 2, size, 2).permute(1, 3, 2, 4, 0).flatten(2, 3).flatten(0, 1)
        stride4 = stride4.view(-1, size, 2, 2, size, 2, 2).permute(1, 4, 2, 5, 3, 6, 0)
        stride4 = stride4.flatten(4, 5).flatten(2, 3).flatten(0, 1)
        groups = zip(cells.split(self.group), vectors.split(self.group))
        logits = torch.cat([self._dot(some, vector, stride8, stride4) for some, vector in groups])
        logits = logits.view(-1, size, size, 2, 2, 2, 2).permute(0, 1, 3, 5, 2, 4, 6)
        return logits.reshape(-1, 4 * size, 4 * size)

    def _dot(self, cells: Tensor, vectors: Tensor, stride8: Tensor, stride4: Tensor) -> Tensor:
        x = F.gelu(self.norm(self._children(cells, self.upscale1) + stride8))
        x = F.gelu(self._children(x, self.upscale2) + stride4)
        return torch.matmul(x.flatten(1, 3), vectors.to(x.dtype)[..., None])

    @staticmethod
    def _children(x: Tensor, upscale: nn.ConvTranspose2d) -> Tensor:
        """[..., C] -> [..., 4, C']: rows of two, as the transposed convolution would place them."""
        weight = upscale.weight.permute(2, 3, 1, 0).flatten(0, 2)
        assert upscale.bias is not None
        return F.linear(x, weight, upscale.bias.repeat(4)).unflatten(-1, (4, -1))


@MODELS.register("entity_decoder")
class EntityDecoder(nn.Module):
    """Mask, IoU and prompt tokens of all entities -> a mask and an IoU for each.

    Args:
        num_entities: Q.
        channels: C.
        depth: layers (4 for vits, 8 for vitl).
        heads: attention heads.
        hidden: width of the layers' MLPs.
        queries: "separate" mask and IoU queries, or "shared" (Table 6).
        own_prompts: False is quirk 1: prompt tokens are dealt out to the entities out of step.
        predicts_entity: without a PromptGenerator the decoder's IoU token also gives the entity logits (Table 6, first row).
    """

    layers: Any  # of EntityDecoderLayer

    def __init__(
        self,
        num_entities: int,
        channels: int,
        depth: int = 4,
        heads: int = 8,
        hidden: int = 2048,
        queries: str = "separate",
        own_prompts: bool = False,
        predicts_entity: bool = False,
    ):
        super().__init__()
        if queries not in ("separate", "shared"):
            raise ValueError(f"model.entity_decoder.queries: 'separate' or 'shared', not '{queries}'")
        self.mask_queries = nn.Embedding(num_entities, channels)
        self.iou_queries = nn.Embedding(num_entities, channels) if queries == "separate" else None
        self.layers = nn.ModuleList(EntityDecoderLayer(channels, heads, hidden) for _ in range(depth))
        # The first layer replaces the tokens by their attention: from random weights all would start as their mean.
        self.layers[0].self_attn.start_apart()
        self.final_attn_token_to_image = Attention(channels, heads, channels // 2)
        self.norm_final_attn = nn.LayerNorm(channels)
        self.mask_upscaling = MaskUpscaling(channels)
        self.mask_head = MLP(channels, channels, channels, channels // 8)
        self.iou_head = MLP(channels, channels, channels, 4, sigmoid=True)  # SAM's head; only output 0 is used
        self.entity_head = MLP(channels, channels, channels, 2) if predicts_entity else None
        self.own_prompts = own_prompts

    def forward(
        self, image_embedding: Tensor, image_position: Tensor, prompts: Prompts | None, features: ImageFeatures
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """One frame.

        Args:
            image_embedding: [Q or 1, hw, C] fused cells; image_position: [hw, C]; prompts: of the PromptGenerator, if any.
            features: for the high-resolution maps.

        Returns:
            mask logits [Q, S/4, S/4], IoU [Q] in 0..1, and entity logits [Q, 2] if this decoder predicts them.
        """
        tokens = self._tokens(prompts)  # [K, Q, C]
        position = tokens
        cells = image_embedding if prompts is None else image_embedding + prompts.dense
        for depth, layer in enumerate(self.layers):
            tokens = layer.talk(tokens, position if depth else None)
            looked, cells = layer.look(tokens.transpose(0, 1), position.transpose(0, 1), cells, image_position)
            tokens = looked.transpose(0, 1)
        own, place = tokens.transpose(0, 1), position.transpose(0, 1)
        seen = self.final_attn_token_to_image.tokens_to_cells(own + place, cells + image_position, cells)
        own = self.norm_final_attn(own + seen)
        mask_token, iou_token = own[:, 0], own[:, 0 if self.iou_queries is None else 1]
        mask_logits = self.mask_upscaling(cells, self.mask_head(mask_token), features)
        entity_logits = None if self.entity_head is None else self.entity_head(iou_token)
        return mask_logits, self.iou_head(iou_token)[:, 0], entity_logits

    def _tokens(self, prompts: Prompts | None) -> Tensor:
        """[K, Q, C]: mask queries, IoU queries, then the prompt tokens in two groups of Q."""
        groups = [self.mask_queries.weight]
        if self.iou_queries is not None:
            groups.append(self.iou_queries.weight)
        if prompts is not None:
            # Flattened per entity and then cut in halves, entity q meets tokens of entities q/2 and (Q + q)/2 (quirk 1).
            sparse = prompts.sparse.transpose(0, 1) if self.own_prompts else prompts.sparse
            groups += sparse.reshape(2, -1, sparse.shape[-1]).to(groups[0].dtype).unbind()
        return torch.stack(groups)
