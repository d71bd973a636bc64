"""Attention between few tokens and many image cells, arranged so that the cells are never projected.

An attention head compares W_q t with W_k x and averages W_v x. With few tokens t and many cells x it is cheaper to
carry the small side over: (W_q t) . (W_k x) = (W_k^T W_q t) . x, and sum a (W_v x) = W_v (sum a x). Equal up to
rounding, and for EntitySAM's 4 tokens per entity about 4 x fewer operations than projecting every cell.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Scores worked on at a time on a CPU: 2^21 floats stay in its caches.
CPU_SCORE_BLOCK = 1 << 21


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(query key^T / sqrt(C)) value, one head.

    Args:
        query: [B, N, C]; key: [B or 1, M, C]; value: [B or 1, M, Cv], where Cv may differ from C.

    Returns:
        [B, N, Cv].

    On a CPU the scores are made in blocks that fit its caches, which there is faster than PyTorch's fused kernel
    (docs/BENCHMARKS.md); elsewhere the fused kernel runs and never stores the scores.
    """
    batch, rows = query.shape[:2]
    if query.device.type != "cpu":
        key, value = key.expand(batch, -1, -1), value.expand(batch, -1, -1)
        return F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None])[:, 0]
    scale = query.shape[-1] ** -0.5
    per_block = max(1, CPU_SCORE_BLOCK // key.shape[1])
    step, entities = min(rows, per_block), max(1, per_block // rows)
    blocks = []
    for start in range(0, batch, entities):
        some = slice(start, start + entities)
        k = key[some] if len(key) == batch else key.expand(len(query[some]), -1, -1)
        v = value[some] if len(value) == batch else value.expand(len(query[some]), -1, -1)
        keys = k.transpose(1, 2)
        parts = [
            torch.bmm((q * scale).to(k.dtype), keys).softmax(-1).to(v.dtype) @ v for q in query[some].split(step, 1)
        ]
        blocks.append(parts[0] if len(parts) == 1 else torch.cat(parts, dim=1))
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks)


class Attention(nn.Module):
    """SAM's multi-head attention with an internal width of its own.

    Args:
        channels: C of the tokens and cells.
        heads: number of heads.
        width: internal channels over all heads.
    """

    def __init__(self, channels: int, heads: int, width: int | None = None):
        super().__init__()
        width = width or channels
        self.heads = heads
        self.q_proj = nn.Linear(channels, width)
        self.k_proj = nn.Linear(channels, width)
        self.v_proj = nn.Linear(channels, width)
        self.out_proj = nn.Linear(width, channels)
        for projection in (self.q_proj, self.k_proj, self.v_proj, self.out_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    @torch.no_grad()
    def start_apart(self) -> None:
        """Weights by which each token mostly finds itself and comes out as it went in: a start that keeps tokens apart."""
        nn.init.orthogonal_(self.q_proj.weight, gain=1.5)
        self.k_proj.weight.copy_(self.q_proj.weight)
        nn.init.orthogonal_(self.v_proj.weight)
        self.out_proj.weight.copy_(self.v_proj.weight.T)

    def _split(self, x: Tensor) -> Tensor:
        """[..., N, width] -> [..., heads, N, width / heads]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Plain attention among tokens: [B, N, C], [B, M, C], [B, M, C] -> [B, N, C]."""
        q, k, v = self._split(self.q_proj(query)), self._split(self.k_proj(key)), self._split(self.v_proj(value))
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out_proj(mixed.transpose(-3, -2).flatten(-2))

    def tokens_to_cells(self, tokens: Tensor, cells_key: Tensor, cells: Tensor) -> Tensor:
        """Few tokens look at many cells, which stay unprojected.

        Args:
            tokens: [Q, K, C] queries; cells_key: [Q or 1, hw, C] keys; cells: [Q or 1, hw, C] values.

        Returns:
            [Q, K, C].
        """
        q = self._split(self.q_proj(tokens))  # [Q, heads, K, d]
        weight = self.k_proj.weight.unflatten(0, (self.heads, -1)).to(q.dtype)
        q = q * q.shape[-1] ** -0.5
        carried = torch.einsum("qhkd,hdc->qhkc", q, weight).flatten(1, 2)
        # The keys' bias adds the same to every cell of a row: softmax ignores it. Its value would only cost precision, so
        # its gradient alone is kept (zero, up to rounding), and with it the parameter in use.
        offset = torch.einsum("qhkd,hd->qhk", q, self.k_proj.bias.unflatten(0, (self.heads, -1)).to(q.dtype)).flatten(1)
        scores = torch.matmul(carried, cells_key.to(q.dtype).transpose(1, 2)) + (offset - offset.detach())[..., None]
        weights = scores.softmax(-1)
        mean = torch.matmul(weights.to(cells.dtype), cells).unflatten(1, (self.heads, -1))  # [Q, heads, K, C]
        v_weight = self.v_proj.weight.unflatten(0, (self.heads, -1)).to(mean.dtype)
        mixed = torch.einsum("qhkc,hdc->qkhd", mean, v_weight).flatten(2) + self.v_proj.bias
        return self.out_proj(mixed)

    def cells_to_tokens(self, cells: Tensor, tokens_key: Tensor, tokens: Tensor) -> Tensor:
        """Many cells, unprojected, look at few tokens.

        Args:
            cells: [Q or 1, hw, C] queries; tokens_key: [Q, K, C] keys; tokens: [Q, K, C] values.

        Returns:
            [Q, hw, C].
        """
        k, v = self._split(self.k_proj(tokens_key)), self._split(self.v_proj(tokens))  # [Q, heads, K, d]
        k = k * k.shape[-1] ** -0.5
        weight = self.q_proj.weight.unflatten(0, (self.heads, -1)).to(k.dtype)
        carried = torch.einsum("qhkd,hdc->qchk", k, weight).flatten(2)
        offset = torch.einsum("qhkd,hd->qhk", k, self.q_proj.bias.unflatten(0, (self.heads, -1)).to(k.dtype)).flatten(1)
        scores = torch.matmul(cells.to(k.dtype), carried) + offset[:, None]
        weights = scores.unflatten(-1, (self.heads, -1)).softmax(-1).flatten(-2)  # [Q, hw, heads * K]
        out_weight = self.out_proj.weight.unflatten(1, (self.heads, -1)).to(v.dtype)
        mixed = torch.einsum("qhkd,chd->qhkc", v, out_weight).flatten(1, 2)
        return torch.matmul(weights.to(mixed.dtype), mixed) + self.out_proj.bias
