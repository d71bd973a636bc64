"""PromptGenerator: learnable queries detect entities and predict point prompts for the decoder (paper section 3.3.2)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from entitysam.layers.attention import keys_into_queries, project_values
from entitysam.layers.prompt_encoder import PromptEncoder
from entitysam.models.dual_encoder import ImageFeatures
from entitysam.registry import MODELS, Count


@dataclass(frozen=True)
class Prompts:
    """Output of the PromptGenerator and input of the decoder; leading dimensions `..` are batch dimensions.

    Attributes:
        sparse: [.., Q, 2, C] point token and padding token of each entity.
        dense: added to the cells: [C] (SAM's "no mask" embedding) or [.., Q, hw, C].
        entity_logits: [.., Q, 2]; None where the decoder predicts them.
        points: [.., Q, 2] (x, y) pixels of the S x S input.
    """

    sparse: Tensor
    dense: Tensor
    entity_logits: Tensor | None
    points: Tensor


@MODELS.register("prompt_generator")
class PromptGenerator(nn.Module):
    """Cross-attention of prompt queries to the enhanced features; predicts entity confidences and points.

    Args:
        num_entities: Q.
        channels: C of the conditioned map.
        enhanced_channels: of the enhanced features (2C, or C without a semantic encoder).
        heads: attention heads.
        swap_first_points: quirk 2: the expected (row, column) of the first frame is used as (x, y).
        clamp_points: False is quirk 5: points may leave the image.
    """

    def __init__(
        self,
        num_entities: int,
        channels: int,
        enhanced_channels: int,
        heads: Count = 8,
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
        """Predicts the prompts of a frame, or of a batch of frames in the leading dimensions.

        Args:
            conditioned: [.., Q or 1, hw, C] memory-conditioned cells.
            features: of the frame.
            previous_points: [.., Q, 2] points of the previous frame; None on the first frame.
        """
        image_size = 16 * features.size
        attended = self._attend(conditioned, features.semantic)
        if previous_points is None:
            points = self._first_points(conditioned[..., 0, :, :], features.size)
        else:
            points = previous_points + self.offset_head(attended)
        if self.clamp_points:
            points = points.clamp(0, image_size - 1)
        sparse = self.prompt_encoder(points, image_size)
        return Prompts(sparse, self.prompt_encoder.no_mask.weight[0], self.entity_head(attended), points)

    def _attend(self, conditioned: Tensor, semantic: Tensor | None) -> Tensor:
        """Cross-attention of each prompt query to its own entity's enhanced features.

        The query is a single token, so the weights are moved to its side as in `layers.attention`, and keys and values
        need no projection per cell. The enhanced features are the concatenation of the conditioned cells of each entity
        and the semantic cells, which all entities share: a query has a part for each, and the shared scores and means are
        one matrix product for all entities.

        Args:
            conditioned: [.., Q or 1, hw, C].
            semantic: [.., hw, C] or None.

        Returns:
            [.., Q, enhanced channels].
        """
        attention = self.prompt_attention
        heads = attention.num_heads
        q_weight, k_weight, v_weight = attention.in_proj_weight.chunk(3)
        q_bias, _, v_bias = attention.in_proj_bias.chunk(3)  # the key bias does not change the softmax
        query = F.linear(self.prompt_queries.weight, q_weight, q_bias).unflatten(1, (heads, 1, -1))  # [Q, heads, 1, d]
        query = query * query.shape[-1] ** -0.5
        moved = keys_into_queries(query, k_weight)[:, :, 0]  # [Q, heads, enhanced channels]
        own, shared = moved[..., : self.channels], moved[..., self.channels :]
        cells = conditioned.to(own.dtype)
        scores = torch.matmul(own, cells.transpose(-2, -1))  # [.., Q, heads, hw]
        if semantic is not None:
            shared_scores = torch.matmul(shared.flatten(0, 1), semantic.to(own.dtype).transpose(-2, -1))
            scores = scores + shared_scores.unflatten(-2, (-1, heads))
        weights = scores.softmax(-1).to(own.dtype)
        mean = torch.matmul(weights, cells)  # [.., Q, heads, C]
        if semantic is not None:
            shared_mean = torch.matmul(weights.flatten(-3, -2), semantic.to(own.dtype))  # [.., Q * heads, C]
            mean = torch.cat([mean, shared_mean.unflatten(-2, (-1, heads))], dim=-1)
        value = project_values(mean.unsqueeze(-2), v_weight)[..., 0, :]  # [.., Q, enhanced channels]
        return attention.out_proj(value + v_bias)

    def _first_points(self, cells: Tensor, size: int) -> Tensor:
        """Expected cell, in pixels, under each query's distribution over the first frame: [.., hw, C] -> [.., Q, 2]."""
        images = cells.flatten(0, -3) if cells.ndim > 2 else cells[None]  # [B, hw, C]
        attended, _ = self.point_attention(images, images, images, need_weights=False)
        distribution = self.point_head(attended).float().softmax(dim=1).transpose(1, 2)  # [B, Q, hw]
        index = torch.arange(size, device=cells.device, dtype=distribution.dtype)
        row, column = torch.meshgrid(index, index, indexing="ij")
        order = (row, column) if self.swap_first_points else (column, row)
        points = distribution @ torch.stack([axis.flatten() for axis in order], dim=1) * 16.0  # [B, Q, 2]
        return points.view(*cells.shape[:-2], *points.shape[1:])
