"""Memory: what is remembered of every entity, and how a frame is read in its light (SAM 2's, frozen)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from entitysam.layers.memory_attention import MemoryAttention
from entitysam.layers.memory_encoder import MemoryEncoder
from entitysam.layers.position import sine_position
from entitysam.registry import MODELS


@dataclass(frozen=True)
class VideoState:
    """Everything that passes from one frame of a video to the next; never changed in place.

    Attributes:
        frames: number of frames processed so far.
        points: [Q, 2] point prompts of the last frame, None before the first.
        memories: per remembered frame [Q, hw, Cm], newest first.
    """

    frames: int = 0
    points: Tensor | None = None
    memories: tuple[Tensor, ...] = ()


@MODELS.register("sam2_memory")
class Memory(nn.Module):
    """SAM 2's memory attention, memory encoder and bank, one memory per entity and frame (paper section 3.3).

    Args:
        channels: C of the map; memory_channels: Cm.
        num_memories: frames remembered.
        depth: layers of the memory attention; hidden: width of its MLPs.
        mask_widths: channels of the four convolutions that bring a mask to stride 16.
        store_dtype: "float32", "bfloat16" (as the published implementation keeps them) or "" for what the encoder gives.
    """

    def __init__(
        self,
        channels: int,
        memory_channels: int = 64,
        num_memories: int = 7,
        depth: int = 4,
        hidden: int = 2048,
        mask_widths: Sequence[int] = (4, 16, 64, 256),
        store_dtype: str = "",
    ):
        super().__init__()
        self.attention = MemoryAttention(channels, memory_channels, depth, hidden)
        self.encoder = MemoryEncoder(channels, memory_channels, mask_widths=mask_widths)
        self.temporal_code = nn.Parameter(torch.zeros(num_memories, 1, 1, memory_channels))
        self.no_memory_embed = nn.Parameter(torch.zeros(1, 1, channels))
        nn.init.trunc_normal_(self.temporal_code, std=0.02)
        nn.init.trunc_normal_(self.no_memory_embed, std=0.02)
        self.num_memories = num_memories
        self.store_dtype = getattr(torch, store_dtype) if store_dtype else None

    def read(self, cells: Tensor, memories: tuple[Tensor, ...]) -> Tensor:
        """Conditioned cells: [hw, C] and memories newest first -> [Q, hw, C], or [1, hw, C] before anything is remembered."""
        if not memories:
            return cells[None] + self.no_memory_embed.to(cells.dtype)
        spatial = sine_position(round(cells.shape[0] ** 0.5), memories[0].shape[-1], self.temporal_code)
        # The memory of the frame just before carries code 0, the one before it code 1, ...
        position = (spatial + self.temporal_code[: len(memories), 0]).flatten(0, 1)
        return self.attention(cells, torch.cat(memories, dim=1).to(cells.dtype), position)

    def write(self, cells: Tensor, mask_logits: Tensor, memories: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Adds a frame to the bank: raw cells [hw, C], unfilled mask logits [Q, S/4, S/4] -> memories, newest first."""
        size = round(cells.shape[0] ** 0.5)
        memory = self.encoder(cells.T.reshape(1, -1, size, size), mask_logits)
        if self.store_dtype is not None:
            memory = memory.to(self.store_dtype)
        return (memory, *memories)[: self.num_memories]


@MODELS.register("no_memory")
class NoMemory(nn.Module):
    """Nothing is remembered: entities are associated by their query alone (Table 5, second row)."""

    def __init__(self, channels: int):
        super().__init__()
        self.no_memory_embed = nn.Parameter(torch.zeros(1, 1, channels))
        nn.init.trunc_normal_(self.no_memory_embed, std=0.02)

    def read(self, cells: Tensor, memories: tuple[Tensor, ...]) -> Tensor:
        """[hw, C] -> [1, hw, C]."""
        return cells[None] + self.no_memory_embed.to(cells.dtype)

    def write(self, cells: Tensor, mask_logits: Tensor, memories: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Remembers nothing."""
        return ()
