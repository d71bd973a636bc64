"""Attention between few tokens and many image cells that never projects the cells.

An attention head computes scores (W_q t) . (W_k x) and a weighted mean of values W_v x. With few tokens t and many
cells x it is cheaper to move the weights to the small side: (W_q t) . (W_k x) = (W_k^T W_q t) . x, and
sum a (W_v x) = W_v (sum a x). The results are equal up to rounding; for EntitySAM's 4 tokens per entity this needs
about 4 x fewer operations than projecting every cell.

Shapes: leading dimensions, written `..`, are batch dimensions; d = width / heads.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Number of attention scores computed at a time on a CPU: 2^21 floats fit its caches.
CPU_SCORE_BLOCK = 1 << 21


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
    """softmax(query key^T / sqrt(C)) value, one head.

    On a CPU the scores are computed in blocks that fit its caches, which is faster there than PyTorch's fused kernel
    (docs/BENCHMARKS.md). Other devices use the fused kernel, which never stores the scores.

    Args:
        query: [B, N, C].
        key: [B or 1, M, C].
        value: [B or 1, M, Cv]; Cv may differ from C.
        bias: [M] added to the scores; -inf leaves a key out.

    Returns:
        [B, N, Cv].
    """
    batch, rows = query.shape[:2]
    if (
        query.device.type != "cpu" or torch.compiler.is_compiling()
    ):  # a compiler needs one graph, not a loop over blocks
        key, value = key.expand(batch, -1, -1), value.expand(batch, -1, -1)
        mask = None if bias is None else bias.to(query.dtype).expand(1, 1, rows, -1)
        return F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None], mask)[:, 0]
    scale = query.shape[-1] ** -0.5
    per_block = max(1, CPU_SCORE_BLOCK // key.shape[1])  # query rows whose scores fit one block
    step, entities = min(rows, per_block), max(1, per_block // rows)
    blocks = []
    for start in range(0, batch, entities):
        some = slice(start, start + entities)
        k = key[some] if len(key) == batch else key.expand(len(query[some]), -1, -1)
        v = value[some] if len(value) == batch else value.expand(len(query[some]), -1, -1)
        keys = k.transpose(1, 2)  # [b, C, M]
        scores = (torch.bmm((q * scale).to(k.dtype), keys) for q in query[some].split(step, 1))
        parts = [(s if bias is None else s + bias).softmax(-1).to(v.dtype) @ v for s in scores]
        blocks.append(parts[0] if len(parts) == 1 else torch.cat(parts, dim=1))
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks)


def keys_into_queries(queries: Tensor, key_weight: Tensor) -> Tensor:
    """Moves the key projection to the queries, so that their dot products with unprojected cells are the scores.

    Args:
        queries: [.., heads, K, d] projected queries.
        key_weight: [heads * d, C] weight W_k of the key projection.

    Returns:
        [.., heads, K, C] with W_k^T q per head.
    """
    by_head = key_weight.unflatten(0, (queries.shape[-3], -1)).to(queries.dtype)  # [heads, d, C]
    return torch.einsum("...hkd,hdc->...hkc", queries, by_head)


def project_values(mean: Tensor, value_weight: Tensor) -> Tensor:
    """Projects means of unprojected cells, one per head, which equals the mean of projected cells.

    Args:
        mean: [.., heads, K, C] weighted means of cells.
        value_weight: [heads * d, C] weight W_v of the value projection.

    Returns:
        [.., K, heads * d], heads side by side, without the bias.
    """
    by_head = value_weight.unflatten(0, (mean.shape[-3], -1)).to(mean.dtype)  # [heads, d, C]
    return torch.einsum("...hkc,hdc->...khd", mean, by_head).flatten(-2)


class Attention(nn.Module):
    """SAM's multi-head attention; the internal width may differ from that of the tokens.

    Args:
        channels: C of the tokens and cells.
        heads: number of heads.
        width: internal channels over all heads; C by default.

    Raises:
        ValueError: a number of heads that does not divide the width.
    """

    def __init__(self, channels: int, heads: int, width: int | None = None):
        super().__init__()
        width = width or channels
        if width % heads:
            raise ValueError(f"heads: must divide {width} channels, not {heads}")
        self.heads = heads
        self.q_proj = nn.Linear(channels, width)
        self.k_proj = nn.Linear(channels, width)
        self.v_proj = nn.Linear(channels, width)
        self.out_proj = nn.Linear(width, channels)
        for projection in (self.q_proj, self.k_proj, self.v_proj, self.out_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    @torch.no_grad()
    def init_near_identity(self) -> None:
        """Initialises the weights so that every token attends mostly to itself and the output is close to the input."""
        nn.init.orthogonal_(self.q_proj.weight, gain=1.5)
        self.k_proj.weight.copy_(self.q_proj.weight)
        nn.init.orthogonal_(self.v_proj.weight)
        self.out_proj.weight.copy_(self.v_proj.weight.T)

    def _split(self, x: Tensor) -> Tensor:
        """[.., N, width] -> [.., heads, N, d]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Standard attention among tokens: [.., N, C], [.., M, C], [.., M, C] -> [.., N, C]."""
        q, k, v = self._split(self.q_proj(query)), self._split(self.k_proj(key)), self._split(self.v_proj(value))
        lead = q.shape[:-3]  # exactly one batch dimension, which is all that the ONNX exporter knows
        q, k, v = (x.reshape(-1, *x.shape[-3:]) for x in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v).view(*lead, *q.shape[-3:])  # [.., heads, N, d]
        return self.out_proj(mixed.transpose(-3, -2).flatten(-2))

    def tokens_to_cells(self, tokens: Tensor, cells_key: Tensor, cells: Tensor) -> Tensor:
        """Attention of few tokens to many cells, which stay unprojected.

        Args:
            tokens: [.., Q, K, C] queries.
            cells_key: [.., Q or 1, hw, C] keys.
            cells: [.., Q or 1, hw, C] values.

        Returns:
            [.., Q, K, C].
        """
        q = self._split(self.q_proj(tokens))  # [.., Q, heads, K, d]
        q = q * q.shape[-1] ** -0.5
        moved = keys_into_queries(q, self.k_proj.weight).flatten(-3, -2)  # [.., Q, heads * K, C]
        scores = torch.matmul(moved, cells_key.to(q.dtype).transpose(-2, -1))  # [.., Q, heads * K, hw]
        # The key bias adds the same number to all scores of a row, and softmax ignores it. `offset - offset.detach()` is 0:
        # it leaves the scores as they are and gives the bias its gradient (0 up to rounding), so that it counts as used.
        key_bias = self.k_proj.bias.unflatten(0, (self.heads, -1)).to(q.dtype)  # [heads, d]
        offset = torch.einsum("...hkd,hd->...hk", q, key_bias).flatten(-2)  # [.., Q, heads * K]
        weights = (scores + (offset - offset.detach())[..., None]).softmax(-1)
        mean = torch.matmul(weights.to(cells.dtype), cells)  # [.., Q, heads * K, C]
        mean = mean.unflatten(-2, (self.heads, -1))  # [.., Q, heads, K, C]
        return self.out_proj(project_values(mean, self.v_proj.weight) + self.v_proj.bias)

    def cells_to_tokens(self, cells: Tensor, tokens_key: Tensor, tokens: Tensor) -> Tensor:
        """Attention of many cells, which stay unprojected, to few tokens.

        Args:
            cells: [.., Q or 1, hw, C] queries.
            tokens_key: [.., Q, K, C] keys.
            tokens: [.., Q, K, C] values.

        Returns:
            [.., Q, hw, C].
        """
        k, v = self._split(self.k_proj(tokens_key)), self._split(self.v_proj(tokens))  # [.., Q, heads, K, d]
        k = k * k.shape[-1] ** -0.5
        # The query projection of the cells moves to the keys, its bias to one offset per key.
        query_weight = self.q_proj.weight.unflatten(0, (self.heads, -1)).to(k.dtype)  # [heads, d, C]
        query_bias = self.q_proj.bias.unflatten(0, (self.heads, -1)).to(k.dtype)  # [heads, d]
        moved = torch.einsum("...hkd,hdc->...chk", k, query_weight).flatten(-2)  # [.., Q, C, heads * K]
        offset = torch.einsum("...hkd,hd->...hk", k, query_bias).flatten(-2)  # [.., Q, heads * K]
        scores = torch.matmul(cells.to(k.dtype), moved) + offset[..., None, :]  # [.., Q, hw, heads * K]
        weights = scores.unflatten(-1, (self.heads, -1)).softmax(-1).flatten(-2)  # softmax over the K of each head
        # The output projection moves to the values: one matrix product sums over heads and tokens.
        out_weight = self.out_proj.weight.unflatten(1, (self.heads, -1)).to(v.dtype)  # [C, heads, d]
        values = torch.einsum("...hkd,chd->...hkc", v, out_weight).flatten(-3, -2)  # [.., Q, heads * K, C]
        return torch.matmul(weights.to(values.dtype), values) + self.out_proj.bias
