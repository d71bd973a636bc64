"""Memory: encodes past masks of every entity and conditions frame features on the memory bank (SAM 2's, frozen)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from entitysam.layers.memory_attention import MemoryAttention
from entitysam.layers.memory_encoder import MemoryEncoder
from entitysam.layers.position import sine_position
from entitysam.registry import MODELS, Channels, Count, Depth, Width


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
        mask_widths: channels of the convolutions that downsample a mask to stride 16: four from the image's resolution, two
            from that of the mask logits, stride 4.
        store_dtype: "float32", "bfloat16" (as in the published implementation) or "" for the encoder's output dtype.
        fuser_depth: ConvNeXt blocks of the memory encoder.
        mask_prompt: also add a learned vector to the cells of the last mask (cf. SAM's mask prompt), so that a small model
            need not learn attention before it can follow an entity.
    """

    def __init__(
        self,
        channels: int,
        memory_channels: Channels = 64,
        num_memories: Count = 7,
        depth: Depth = 4,
        hidden: Width = 2048,
        mask_widths: Sequence[int] = (4, 16, 64, 256),
        store_dtype: str = "",
        fuser_depth: int = 2,
        mask_prompt: bool = False,
    ):
        super().__init__()
        self.attention = MemoryAttention(channels, memory_channels, depth, hidden)
        self.encoder = MemoryEncoder(channels, memory_channels, fuser_depth, mask_widths)
        self.temporal_code = nn.Parameter(torch.zeros(num_memories, 1, 1, memory_channels))
        self.no_memory_embed = nn.Parameter(torch.zeros(1, 1, channels))
        nn.init.trunc_normal_(self.temporal_code, std=0.02)
        nn.init.trunc_normal_(self.no_memory_embed, std=0.02)
        self.num_memories = num_memories
        self.store_dtype = getattr(torch, store_dtype) if store_dtype else None
        self.mask_embed = nn.Parameter(torch.randn(channels)) if mask_prompt else None

    def read(self, cells: Tensor, memories: tuple[Tensor, ...]) -> Tensor:
        """Conditions a frame on the memory bank.

        Args:
            cells: [.., hw, C] of the frame.
            memories: newest first, each [.., Q, hw, Cm], and one channel more with `mask_prompt`.

        Returns:
            [.., Q, hw, C]; [.., 1, hw, C], the same map for all entities, where the bank is empty.
        """
        if not memories:
            return cells.unsqueeze(-3) + self.no_memory_embed.to(cells.dtype)
        if cells.ndim > 2:
            return torch.stack([self.read(*of_frame) for of_frame in zip(cells, zip(*memories))])
        last_mask = None
        if self.mask_embed is not None:  # the mask is the last channel of a memory
            last_mask, memories = memories[0][..., -1:], tuple(memory[..., :-1] for memory in memories)
        spatial = sine_position(round(cells.shape[0] ** 0.5), memories[0].shape[-1], self.temporal_code)
        # Temporal code 0 belongs to the previous frame, code 1 to the one before it, ...
        position = (spatial + self.temporal_code[: len(memories), 0]).flatten(0, 1)  # [M, hw, Cm] -> [M * hw, Cm]
        conditioned = self.attention(cells, torch.cat(memories, dim=1).to(cells.dtype), position)
        if last_mask is None or self.mask_embed is None:
            return conditioned
        return conditioned + last_mask.to(cells.dtype) * self.mask_embed

    def knows(self, memories: tuple[Tensor, ...]) -> Tensor | None:
        """Entities that the newest memory holds a mask of: bool [.., Q]; None where that cannot be told."""
        if not memories or self.mask_embed is None:
            return None
        return memories[0][..., -1].amax(-1) > 0.5

    def write(self, cells: Tensor, mask_logits: Tensor, memories: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Adds a frame to the bank and drops the oldest one beyond its capacity.

        Args:
            cells: [.., hw, C] raw cells of the frame.
            mask_logits: [.., Q, S/4, S/4], before hole filling.
            memories: the bank so far.

        Returns:
            the new bank, newest first.
        """
        memory = (
            torch.stack([self._encode(*of_frame) for of_frame in zip(cells, mask_logits)])
            if cells.ndim > 2
            else (self._encode(cells, mask_logits))
        )
        if self.store_dtype is not None:
            memory = memory.to(self.store_dtype)
        return (memory, *memories)[: self.num_memories]

    def _encode(self, cells: Tensor, mask_logits: Tensor) -> Tensor:
        """cells [hw, C], mask_logits [Q, S/4, S/4] -> [Q, hw, Cm], and the mask's share of each cell with `mask_prompt`."""
        size = round(cells.shape[0] ** 0.5)
        memory = self.encoder(cells.T.reshape(1, -1, size, size), mask_logits)  # [hw, C] -> [1, C, h, w]
        if self.mask_embed is None:
            return memory
        share = F.avg_pool2d(mask_logits.float().sigmoid()[:, None], 4).flatten(1)  # [Q, hw]
        return torch.cat([memory, share[..., None].to(memory.dtype)], dim=-1)


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

    def knows(self, memories: tuple[Tensor, ...]) -> Tensor | None:
        """None: it cannot be told which entities were there."""
        return None

    def write(self, cells: Tensor, mask_logits: Tensor, memories: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Returns an empty bank."""
        return ()
