"""PromptGenerator: learnable queries find entities and prompt the decoder with points (paper section 3.3.2)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from entitysam.layers.prompt_encoder import PromptEncoder
from entitysam.models.dual_encoder import ImageFeatures
from entitysam.registry import MODELS


@dataclass(frozen=True)
class Prompts:
    """What the PromptGenerator hands to the decoder.

    Attributes:
        sparse: [Q, 2, C] point token and padding token of each entity.
        dense: [C] added to every cell ("no mask").
        entity_logits: [Q, 2].
        points: [Q, 2] (x, y) pixels of the S x S input.
    """

    sparse: Tensor
    dense: Tensor
    entity_logits: Tensor
    points: Tensor


@MODELS.register("prompt_generator")
class PromptGenerator(nn.Module):
    """Prompt queries look at the enhanced features; out come entity confidences and points.

    Args:
        num_entities: Q.
        channels: C of the conditioned map.
        enhanced_channels: of the enhanced features (2C, or C without a semantic encoder).
        heads: attention heads.
        swap_first_points: quirk 2: the expected (row, column) of the first frame is used as (x, y).
        clamp_points: False is quirk 5: points may drift out of the image.
    """

    def __init__(
        self,
        num_entities: int,
        channels: int,
        enhanced_channels: int,
        heads: int = 8,
        swap_first_points: bool = True,
        clamp_points: bool = False,
    ):
        super().__init__()
        self.prompt_encoder = PromptEncoder(channels)
        self.prompt_queries = nn.Embedding(num_entities, enhanced_channels)
        self.prompt_attention = nn.MultiheadAttention(enhanced_channels, heads, batch_first=True)
        self.entity_head = nn.Linear(enhanced_channels, 2)
        self.offset_head = nn.Linear(enhanced_channels, 2)
        self.point_attention = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.point_head = nn.Linear(channels, num_entities)
        self.channels = channels
        self.swap_first_points = swap_first_points
        self.clamp_points = clamp_points

    def forward(self, conditioned: Tensor, features: ImageFeatures, previous_points: Tensor | None) -> Prompts:
        """Prompts of one frame.

        Args:
            conditioned: [Q or 1, hw, C] memory-conditioned cells.
            features: of the frame.
            previous_points: [Q, 2] of the frame before; None on the first frame.
        """
        image_size = 16 * features.size
        attended = self._attend(conditioned, features.semantic)
        if previous_points is None:
            points = self._first_points(conditioned[0], features.size)
        else:
            points = previous_points + self.offset_head(attended)
        if self.clamp_points:
            points = points.clamp(0, image_size - 1)
        sparse = self.prompt_encoder(points, image_size)
        return Prompts(sparse, self.prompt_encoder.no_mask.weight[0], self.entity_head(attended), points)

    def _attend(self, conditioned: Tensor, semantic: Tensor | None) -> Tensor:
        """Cross-attention of each prompt query to its own entity's enhanced features -> [Q, enhanced channels].

        The query is one token, so keys and values need no projection per cell (`layers.attention` says why), and the
        semantic half, the same for all entities, is one matrix product for all of them.
        """
        attention = self.prompt_attention
        heads = attention.num_heads
        q_weight, k_weight, v_weight = attention.in_proj_weight.chunk(3)
        q_bias, _, v_bias = attention.in_proj_bias.chunk(3)
        query = F.linear(self.prompt_queries.weight, q_weight, q_bias).unflatten(1, (heads, -1))
        query = query * query.shape[-1] ** -0.5
        carried = torch.einsum("qhd,hdc->qhc", query, k_weight.unflatten(0, (heads, -1)).to(query.dtype))
        own, shared = carried[..., : self.channels], carried[..., self.channels :]
        cells = conditioned.to(own.dtype)
        scores = torch.matmul(own, cells.transpose(1, 2))
        if semantic is not None:
            scores = scores + torch.matmul(shared, semantic.to(shared.dtype).T)
        weights = scores.softmax(-1).to(own.dtype)
        mean = torch.matmul(weights, cells)
        if semantic is not None:
            mean = torch.cat([mean, torch.matmul(weights, semantic.to(weights.dtype))], dim=-1)
        value = (
            torch.einsum("qhc,hdc->qhd", mean, v_weight.unflatten(0, (heads, -1)).to(mean.dtype)).flatten(1) + v_bias
        )
        return attention.out_proj(value)

    def _first_points(self, cells: Tensor, size: int) -> Tensor:
        """Expected cell of each query's distribution over the first frame's cells, in pixels: [hw, C] -> [Q, 2]."""
        attended, _ = self.point_attention(cells[None], cells[None], cells[None], need_weights=False)
        distribution = self.point_head(attended[0]).float().softmax(dim=0).T  # [Q, hw]
        index = torch.arange(size, device=cells.device, dtype=distribution.dtype)
        row, column = torch.meshgrid(index, index, indexing="ij")
        order = (row, column) if self.swap_first_points else (column, row)
        return distribution @ torch.stack([axis.flatten() for axis in order], dim=1) * 16.0
