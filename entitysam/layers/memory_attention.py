"""SAM 2's memory attention: conditions the current feature map on the memories, for every entity separately."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from entitysam.layers.attention import attend
from entitysam.layers.position import axial_rotation, rotate, sine_position


class RotaryAttention(nn.Module):
    """Single-head attention with axial RoPE on queries and keys (SAM 2's `RoPEAttention`).

    Args:
        channels: C of the queries and the output.
        context_channels: of keys and values, if they come from elsewhere.
    """

    def __init__(self, channels: int, context_channels: int | None = None):
        super().__init__()
        self.q_proj = nn.Linear(channels, channels)
        self.k_proj = nn.Linear(context_channels or channels, channels)
        self.v_proj = nn.Linear(context_channels or channels, channels)
        self.out_proj = nn.Linear(channels, channels)

    def forward(
        self,
        x: Tensor,
        context: Tensor,
        context_position: Tensor | None,
        rotation: tuple[Tensor, Tensor],
        key_rotation: tuple[Tensor, Tensor] | None = None,
        bias: Tensor | None = None,
        tokens: int = 0,
    ) -> Tensor:
        """Attention of a grid to one or several grids.

        Args:
            x: [B or 1, hw, C].
            context: [B, M * hw + P, Cm], M grids one after the other, then P tokens.
            context_position: [M * hw + P, Cm] code added for the keys, the same for all B, or None.
            rotation: cosine and sine, each [hw, C / 2].
            key_rotation: as `rotation`, of grids that have another size than x.
            bias: [M * hw + P] added to the scores of the keys; -inf leaves one out.
            tokens: P, context without a place on the grid (SAM 2's object pointers); not rotated.

        Returns:
            [B, hw, C].
        """
        key_rotation = key_rotation or rotation
        query = rotate(self.q_proj(x), *rotation)  # [B or 1, hw, C]
        if context_position is None:
            key = self.k_proj(context)
        else:  # linear, so the part that all entities share is projected once
            key = F.linear(context, self.k_proj.weight).add_(self.k_proj(context_position))
        key = self._rotated(key, key_rotation, tokens)
        # softmax(QK) (M W) = (softmax(QK) M) W: values stay at Cm channels through the attention, and W is folded into the
        # output layer.
        mixed = attend(query.expand(len(context), -1, -1), key, context.to(key.dtype), bias)
        weight = self.out_proj.weight @ self.v_proj.weight  # [C, C] [C, Cm] -> [C, Cm]
        bias = self.out_proj.weight @ self.v_proj.bias + self.out_proj.bias
        return F.linear(mixed, weight, bias)

    @staticmethod
    def _rotated(key: Tensor, rotation: tuple[Tensor, Tensor], tokens: int) -> Tensor:
        """Keys [B, M * hw + P, C], which may be overwritten; the last P = `tokens` stay as they are."""
        cells = key.shape[1] - tokens
        grids = key[:, :cells].unflatten(1, (-1, len(rotation[0])))  # [B, M, hw, C]
        if key.device.type == "cpu" and key.dtype == torch.float32 and not torch.compiler.is_compiling():
            # In place: keys are the largest tensors here, and a copy of them costs as much as a matrix product.
            torch.view_as_complex(grids.unflatten(-1, (-1, 2))).mul_(torch.complex(*rotation))
            return key
        turned = rotate(grids, *rotation).flatten(1, 2)
        return torch.cat([turned, key[:, cells:]], dim=1) if tokens else turned


class MemoryAttentionLayer(nn.Module):
    """Pre-norm self-attention, cross-attention to the memories, MLP; each with a residual."""

    def __init__(self, channels: int, memory_channels: int, hidden: int):
        super().__init__()
        self.self_attn = RotaryAttention(channels)
        self.cross_attn_image = RotaryAttention(channels, memory_channels)
        self.linear1 = nn.Linear(channels, hidden)
        self.linear2 = nn.Linear(hidden, channels)
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.norm3 = nn.LayerNorm(channels)

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        position: Tensor,
        rotation: tuple[Tensor, Tensor],
        key_rotation: tuple[Tensor, Tensor] | None = None,
        bias: Tensor | None = None,
        tokens: int = 0,
    ) -> Tensor:
        """x [B or 1, hw, C], memory [B, N, Cm], position [N, Cm] of M * hw + P = N keys, others as in `RotaryAttention`
        -> [B, hw, C]."""
        normed = self.norm1(x)
        x = x + self.self_attn(normed, normed, None, rotation)
        x = x + self.cross_attn_image(self.norm2(x), memory, position, rotation, key_rotation, bias, tokens)
        return x + self.linear2(self.linear1(self.norm3(x)).relu_())


class MemoryAttention(nn.Module):
    """Conditions a feature map on every entity's memories (SAM 2, section 4, "Memory attention").

    Args:
        channels: C of the map.
        memory_channels: Cm of the memories.
        depth: number of layers.
        hidden: width of the MLPs.

    The map enters without a batch of entities: up to the first cross-attention it is the same for all, so the
    first self-attention runs once. The rest runs on `group` entities at a time, which bounds the MLP's activations.
    """

    group = 10

    def __init__(self, channels: int = 256, memory_channels: int = 64, depth: int = 4, hidden: int = 2048):
        super().__init__()
        self.layers = nn.ModuleList(MemoryAttentionLayer(channels, memory_channels, hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(channels)

    def forward(
        self,
        cells: Tensor,
        memory: Tensor,
        memory_position: Tensor,
        tokens: Tensor | None = None,
        tokens_position: Tensor | None = None,
        pool: int = 1,
        bias: Tensor | None = None,
    ) -> Tensor:
        """Conditions a frame on the memories of Q entities.

        Args:
            cells: [hw, C].
            memory: [Q, M * hw / pool^2, Cm]; memory_position: [M * hw / pool^2, Cm].
            pool: the memories are means over pool x pool cells.
            bias: [M * hw / pool^2] added to the scores of the memories' cells.
            tokens: [Q, P, Cm] object pointers of SAM 2, or None; tokens_position: [P, Cm]. Not beside `bias`.

        Returns:
            [Q, hw, C].
        """
        size = round(cells.shape[0] ** 0.5)
        rotation = axial_rotation(size, cells.shape[1], cells)
        key_rotation = axial_rotation(size // pool, cells.shape[1], cells, pool=pool) if pool > 1 else None
        shared = (cells + 0.1 * sine_position(size, cells.shape[1], cells))[None]  # [1, hw, C]
        count = 0
        if tokens is not None and tokens_position is not None:
            count = tokens.shape[1]
            memory = torch.cat([memory, tokens.to(memory.dtype)], dim=1)
            memory_position = torch.cat([memory_position, tokens_position])
        groups = []
        for some in memory.split(self.group):
            x = shared
            for layer in self.layers:
                x = layer(x, some, memory_position, rotation, key_rotation, bias, count)
            groups.append(self.norm(x))
        return torch.cat(groups)
