"""Memory: encodes past masks of every entity and conditions frame features on the memory bank (SAM 2's, frozen)."""

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
    """The state between two frames of a video; never changed in place.

    Attributes:
        frames: number of frames processed so far.
        points: [Q, 2] point prompts of the last frame, (x, y) in pixels; None before the first.
        memories: one tensor [Q, hw, Cm] per frame in the memory bank, newest first.
    """

    frames: int = 0
    points: Tensor | None = None
    memories: tuple[Tensor, ...] = ()


@MODELS.register("sam2_memory")
class Memory(nn.Module):
    """SAM 2's memory attention, memory encoder and bank, with one memory per entity and frame (paper section 3.3).

    Args:
        channels: C of the map.
        memory_channels: Cm of the memories.
        num_memories: capacity of the bank in frames.
        depth: layers of the memory attention.
        hidden: width of its MLPs.
        mask_widths: channels of the four convolutions that downsample a mask to stride 16.
        store_dtype: "float32", "bfloat16" (as in the published implementation) or "" for the encoder's output dtype.
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
        """Conditions a frame on the memory bank.

        Args:
            cells: [hw, C] of the frame; [.., hw, C] where the bank is empty.
            memories: newest first, each [Q, hw, Cm].

        Returns:
            [Q, hw, C]; [.., 1, hw, C], the same map for all entities, where the bank is empty.
        """
        if not memories:
            return cells.unsqueeze(-3) + self.no_memory_embed.to(cells.dtype)
        spatial = sine_position(round(cells.shape[0] ** 0.5), memories[0].shape[-1], self.temporal_code)
        # Temporal code 0 belongs to the previous frame, code 1 to the one before it, ...
        position = (spatial + self.temporal_code[: len(memories), 0]).flatten(0, 1)  # [M, hw, Cm] -> [M * hw, Cm]
        return self.attention(cells, torch.cat(memories, dim=1).to(cells.dtype), position)

    def write(self, cells: Tensor, mask_logits: Tensor, memories: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Adds a frame to the bank and drops the oldest one beyond its capacity.

        Args:
            cells: [hw, C] raw cells of the frame.
            mask_logits: [Q, S/4, S/4], before hole filling.
            memories: the bank so far.

        Returns:
            the new bank, newest first.
        """
        size = round(cells.shape[0] ** 0.5)
        memory = self.encoder(cells.T.reshape(1, -1, size, size), mask_logits)
        if self.store_dtype is not None:
            memory = memory.to(self.store_dtype)
        return (memory, *memories)[: self.num_memories]


@MODELS.register("no_memory")
class NoMemory(nn.Module):
    """An empty memory: entities are associated across frames by their query alone (Table 5, second row).

    Args:
        channels: C of the map.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.no_memory_embed = nn.Parameter(torch.zeros(1, 1, channels))
        nn.init.trunc_normal_(self.no_memory_embed, std=0.02)

    def read(self, cells: Tensor, memories: tuple[Tensor, ...]) -> Tensor:
        """[.., hw, C] -> [.., 1, hw, C]."""
        return cells.unsqueeze(-3) + self.no_memory_embed.to(cells.dtype)

    def write(self, cells: Tensor, mask_logits: Tensor, memories: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Returns an empty bank."""
        return ()
