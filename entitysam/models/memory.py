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
        idle: int64 [Q] passes since the entity was last seen; None unless `Speed.prune` is set.
        filled: bool [M] memories that are there, where `memories` is padded to a fixed length; None: all.
    """

    frames: int = 0
    points: Tensor | None = None
    memories: tuple[Tensor, ...] = ()
    idle: Tensor | None = None
    filled: Tensor | None = None


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

    def read(
        self,
        cells: Tensor,
        memories: tuple[Tensor, ...],
        active: Tensor | None = None,
        pool: int = 1,
        filled: Tensor | None = None,
    ) -> Tensor:
        """Conditions a frame on the memory bank.

        Args:
            cells: [.., hw, C] of the frame.
            memories: newest first, each [.., Q, hw, Cm], and one channel more with `mask_prompt`.
            active: int64 [A] entities whose memories are read; the others get the map of an empty bank. None: all.
            pool: read means over pool x pool cells of the memories; exact only with 1.
            filled: bool [M] memories that are read, of a padded bank; None: all.

        Returns:
            [.., Q, hw, C]; [.., 1, hw, C], the same map for all entities, where the bank is empty or nobody is active.
        """
        if not memories or (active is not None and not len(active)):
            return cells.unsqueeze(-3) + self.no_memory_embed.to(cells.dtype)
        if active is not None and len(active) < len(memories[0]):
            conditioned = self.read(cells, (), None).expand(len(memories[0]), -1, -1).clone()  # [Q, hw, C]
            conditioned[active] = self.read(cells, tuple(memory[active] for memory in memories), None, pool, filled)
            return conditioned
        if cells.ndim > 2:
            return torch.stack([self.read(*of_frame) for of_frame in zip(cells, zip(*memories))])
        last_mask = None
        if self.mask_embed is not None:  # the mask is the last channel of a memory
            last_mask, memories = memories[0][..., -1:], tuple(memory[..., :-1] for memory in memories)
        spatial = sine_position(round(cells.shape[0] ** 0.5), memories[0].shape[-1], self.temporal_code)
        if pool > 1:
            spatial, memories = _pooled(spatial, pool), tuple(_pooled(memory, pool) for memory in memories)
        # Temporal code 0 belongs to the previous frame, code 1 to the one before it, ...
        position = (spatial + self.temporal_code[: len(memories), 0]).flatten(0, 1)  # [M, hw, Cm] -> [M * hw, Cm]
        bias = None
        if filled is not None:  # [M] -> [M * hw]
            bias = torch.where(filled, 0.0, -torch.inf).repeat_interleave(memories[0].shape[-2])
        conditioned = self.attention(cells, torch.cat(memories, dim=1).to(cells.dtype), position, pool=pool, bias=bias)
        if last_mask is None or self.mask_embed is None:
            return conditioned
        return conditioned + last_mask.to(cells.dtype) * self.mask_embed

    def knows(self, memories: tuple[Tensor, ...]) -> Tensor | None:
        """Entities that the newest memory holds a mask of: bool [.., Q]; None where that cannot be told."""
        if not memories or self.mask_embed is None:
            return None
        return memories[0][..., -1].amax(-1) > 0.5

    def write(
        self,
        cells: Tensor,
        mask_logits: Tensor,
        memories: tuple[Tensor, ...],
        active: Tensor | None = None,
        woken: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Adds a frame to the bank and drops the oldest one beyond its capacity.

        Args:
            cells: [.., hw, C] raw cells of the frame.
            mask_logits: [.., Q, S/4, S/4], before hole filling.
            memories: the bank so far.
            active: int64 [A] entities that are encoded; the memory of the others is 0 and must not be read. None: all.
            woken: bool [Q] entities that were not active before: the whole bank becomes this frame for them, as if the video
                began here.

        Returns:
            the new bank, newest first.
        """
        if active is not None and len(active) < len(mask_logits):
            some = self.write(cells, mask_logits[active], ())[0]
            memory = some.new_zeros(len(mask_logits), *some.shape[1:])
            memory[active] = some
            return self._with(memory, memories, woken)
        memory = (
            torch.stack([self._encode(*of_frame) for of_frame in zip(cells, mask_logits)])
            if cells.ndim > 2
            else (self._encode(cells, mask_logits))
        )
        if self.store_dtype is not None:
            memory = memory.to(self.store_dtype)
        return self._with(memory, memories, woken)

    def _with(self, memory: Tensor, memories: tuple[Tensor, ...], woken: Tensor | None) -> tuple[Tensor, ...]:
        """The bank with a memory [Q, hw, Cm] more."""
        if woken is not None and woken.any():
            memories = tuple(torch.where(woken[:, None, None], memory, older) for older in memories)
        return (memory, *memories)[: self.num_memories]

    def _encode(self, cells: Tensor, mask_logits: Tensor) -> Tensor:
        """cells [hw, C], mask_logits [Q, S/4, S/4] -> [Q, hw, Cm], and the mask's share of each cell with `mask_prompt`."""
        size = round(cells.shape[0] ** 0.5)
        memory = self.encoder(cells.T.reshape(1, -1, size, size), mask_logits)  # [hw, C] -> [1, C, h, w]
        if self.mask_embed is None:
            return memory
        share = F.avg_pool2d(mask_logits.float().sigmoid()[:, None], 4).flatten(1)  # [Q, hw]
        return torch.cat([memory, share[..., None].to(memory.dtype)], dim=-1)


def _pooled(grid: Tensor, pool: int) -> Tensor:
    """Means over pool x pool cells of a square grid: [.., hw, C] -> [.., hw / pool^2, C]."""
    size = round(grid.shape[-2] ** 0.5)
    # [.., h/p, p, w/p, p, C]
    split = grid.unflatten(-2, (size // pool, pool, size // pool, pool))
    return split.mean((-4, -2)).flatten(-3, -2)


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

    def read(
        self,
        cells: Tensor,
        memories: tuple[Tensor, ...],
        active: Tensor | None = None,
        pool: int = 1,
        filled: Tensor | None = None,
    ) -> Tensor:
        """[.., hw, C] -> [.., 1, hw, C]."""
        return cells.unsqueeze(-3) + self.no_memory_embed.to(cells.dtype)

    def knows(self, memories: tuple[Tensor, ...]) -> Tensor | None:
        """None: it cannot be told which entities were there."""
        return None

    def write(
        self,
        cells: Tensor,
        mask_logits: Tensor,
        memories: tuple[Tensor, ...],
        active: Tensor | None = None,
        woken: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Returns an empty bank."""
        return ()
