"""The layer of SAM's two-way transformer, which SAM 2's mask decoder and the EntityDecoder consist of."""

from torch import Tensor, nn

from entitysam.layers.attention import Attention
from entitysam.layers.common import MLP


class TwoWayLayer(nn.Module):
    """Self-attention of tokens, then tokens to cells, MLP, cells to tokens (Segment Anything, Figure 14).

    The two steps are apart because they may group the tokens differently: the EntityDecoder lets the tokens of all
    entities attend to each other, SAM 2's decoder those of one object.

    Args:
        channels: C.
        heads: attention heads.
        hidden: width of the MLP.
    """

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

    def self_attend(self, tokens: Tensor, position: Tensor | None) -> Tensor:
        """Self-attention among the N tokens of a group.

        Args:
            tokens: [.., N, C].
            position: the same shape; None in the first layer, which has no residual path.

        Returns:
            [.., N, C].
        """
        if position is None:
            return self.norm1(self.self_attn(tokens, tokens, tokens))
        placed = tokens + position
        return self.norm1(tokens + self.self_attn(placed, placed, tokens))

    def cross_attend(
        self, tokens: Tensor, position: Tensor, cells: Tensor, cells_position: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Cross-attention between the tokens of each entity and its map, in both directions.

        Args:
            tokens, position: [.., Q, K, C].
            cells: [.., Q or 1, hw, C].
            cells_position: [hw, C].

        Returns:
            tokens [.., Q, K, C] and cells [.., Q, hw, C].
        """
        placed_cells = cells + cells_position
        # [.., Q, K, C]
        tokens = tokens + self.cross_attn_token_to_image.tokens_to_cells(tokens + position, placed_cells, cells)
        tokens = self.norm2(tokens)
        tokens = self.norm3(tokens + self.mlp(tokens))
        # [.., Q, hw, C]
        cells = cells + self.cross_attn_image_to_token.cells_to_tokens(placed_cells, tokens + position, tokens)
        return tokens, self.norm4(cells)
