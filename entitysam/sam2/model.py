"""SAM 2.1: image encoder, memory attention, prompt encoder, mask decoder, memory encoder (Ravi et al., 2024, Figure 3)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from entitysam.layers.common import MLP
from entitysam.layers.memory_attention import MemoryAttention
from entitysam.layers.memory_encoder import MemoryEncoder
from entitysam.layers.network import Network
from entitysam.layers.position import sine_position
from entitysam.sam2.mask_decoder import Decoded, MaskDecoder
from entitysam.sam2.prompt_encoder import PADDING, Points, PromptEncoder

ABSENT_LOGIT = -1024.0  # mask logit of an object that the object score says is not visible
MAX_POINTERS = 16
MASK_SCALE, MASK_BIAS = 20.0, -10.0  # logits of a given binary mask: +10 inside, -10 outside


@dataclass(frozen=True)
class FrameFeatures:
    """Maps of one frame, the same for every object.

    Attributes:
        stride4: [C, S/4, S/4]; stride8: [C, S/8, S/8]; cells: [hw, C] the stride-16 map, row-major.
    """

    stride4: Tensor
    stride8: Tensor
    cells: Tensor


@dataclass(frozen=True)
class Masks:
    """What the network finds for B objects on one frame.

    Attributes:
        mask_logits: float32 [B, S/4, S/4].
        iou: [B] predicted IoU in 0..1.
        pointer: [B, C] object pointers.
        object_score: [B] logit; positive where the object is visible.
    """

    mask_logits: Tensor
    iou: Tensor
    pointer: Tensor
    object_score: Tensor


@dataclass(frozen=True)
class MemoryLayout:
    """Which memories a frame attends to, in frames before it; objects of one layout are batched.

    Attributes:
        spatial: per spatial memory its temporal index: 0 for a prompted frame, else 1..num_memories - 1 frames away.
        pointers: per object pointer its signed distance in frames.
    """

    spatial: tuple[int, ...]
    pointers: tuple[int, ...]


class SAM2(Network):
    """The network of SAM 2.1; stateless.

    Args:
        image_encoder: images [B, 3, S, S] -> maps of stride 4, 8, 16 with C channels.
        image_size: S, a multiple of 32.
        channels: C; memory_channels: Cm.
        num_memories: spatial memories of unprompted frames, plus one.
        store_dtype: dtype of spatial memories between frames: "float32", "bfloat16" (the public implementation's), or "" for
            what the memory encoder returns.
    """

    def __init__(
        self,
        image_encoder: nn.Module,
        image_size: int = 1024,
        channels: int = 256,
        memory_channels: int = 64,
        num_memories: int = 7,
        depth: int = 4,
        hidden: int = 2048,
        mask_widths: Sequence[int] = (4, 16, 64, 256),
        store_dtype: str = "",
    ):
        super().__init__()
        if image_size <= 0 or image_size % 32:
            raise ValueError(f"model.image_size: must be a positive multiple of 32, not {image_size}")
        self.image_encoder = image_encoder
        self.memory_attention = MemoryAttention(channels, memory_channels, depth, hidden)
        self.memory_encoder = MemoryEncoder(channels, memory_channels, mask_widths=mask_widths)
        self.prompt_encoder = PromptEncoder(channels)
        self.mask_decoder = MaskDecoder(channels, hidden=hidden)
        self.pointer_head = MLP(channels, channels, channels, channels)
        self.pointer_time = nn.Linear(channels, memory_channels)
        self.mask_downsample = nn.Conv2d(1, 1, kernel_size=4, stride=4)
        self.temporal_code = nn.Parameter(0.02 * torch.randn(num_memories, 1, 1, memory_channels))
        self.no_memory_embed = nn.Parameter(0.02 * torch.randn(1, 1, channels))
        self.no_object_pointer = nn.Parameter(0.02 * torch.randn(1, channels))
        self.no_object_memory = nn.Parameter(0.02 * torch.randn(1, memory_channels))
        self.image_size = image_size
        self.channels = channels
        self.num_memories = num_memories
        self.store_dtype = getattr(torch, store_dtype) if store_dtype else None

    # One image --------------------------------------------------------------------------------------------------------

    def prepare(self, frame: np.ndarray) -> Tensor:
        """uint8 [H, W, 3] RGB of any size -> normalised [3, S, S] (PIL bicubic, the aspect ratio is not kept)."""
        side = (self.image_size, self.image_size)
        resized = np.array(Image.fromarray(frame).resize(side, Image.Resampling.BICUBIC))
        return self.normalise(torch.from_numpy(resized).to(self.device).permute(2, 0, 1))

    def encode(self, image: Tensor) -> FrameFeatures:
        """Normalised [3, S, S] -> its maps."""
        stride4, stride8, stride16 = self.image_encoder(image[None])
        return FrameFeatures(stride4[0], stride8[0], stride16[0].flatten(1).T)

    def unconditioned(self, features: FrameFeatures) -> Tensor:
        """Cells [1, hw, C] of a frame without memory."""
        return features.cells[None] + self.no_memory_embed

    def decode(
        self, cells: Tensor, features: FrameFeatures, points: Points | None, mask_logits: Tensor | None, count: int
    ) -> Masks:
        """Masks of `count` = B objects.

        Args:
            cells: [B or 1, hw, C] conditioned cells.
            points: of the B objects, or None on a frame without a new prompt.
            mask_logits: [B, S/4, S/4] dense prompt, or None.
        """
        multimask = points is None or points.count <= 1
        decoded = self.decode_masks(cells, features, points, mask_logits, count, multimask)
        best = decoded.iou.argmax(dim=1) if multimask else torch.zeros(count, dtype=torch.long, device=cells.device)
        rows = torch.arange(count, device=cells.device)
        visible = decoded.object_score > 0
        logits = torch.where(visible[:, None, None], decoded.mask_logits[rows, best].float(), ABSENT_LOGIT)
        return Masks(
            logits, decoded.iou[rows, best], self._pointer(decoded.tokens[rows, best], visible), decoded.object_score
        )

    def decode_masks(
        self,
        cells: Tensor,
        features: FrameFeatures,
        points: Points | None,
        mask_logits: Tensor | None,
        count: int,
        multimask: bool,
    ) -> Decoded:
        """What the decoder gives for B objects, whether they are visible or not; arguments as for `decode`."""
        if points is None:  # SAM 2 then gives one padding point, and SAM appends another
            empty = torch.zeros(count, 1, 2, device=cells.device)
            points = Points(empty, torch.full((count, 1), PADDING, device=cells.device))
        sparse = self.prompt_encoder.sparse(points, self.image_size)
        dense = self.prompt_encoder.dense(mask_logits)
        size = features.stride8.shape[-1] // 2
        position = self.prompt_encoder.position.grid(size)
        return self.mask_decoder(cells, position, sparse, dense, features.stride8, features.stride4, multimask)

    def given(self, features: FrameFeatures, masks: Tensor) -> Masks:
        """Turns given masks into the output of a frame; the decoder only makes their pointers.

        Args:
            masks: float [B, S, S], 0 or 1.
        """
        logits = masks * MASK_SCALE + MASK_BIAS
        side = self.image_size // 4
        low = F.interpolate(logits[:, None], (side, side), mode="bilinear", align_corners=False, antialias=True)[:, 0]
        prompt = self.mask_downsample(masks[:, None])[:, 0]
        # The public implementation decodes on the raw cells here, without the no-memory embedding.
        decoded = self.decode_masks(features.cells[None], features, None, prompt, len(masks), multimask=False)
        pointer = self._pointer(decoded.tokens[:, 0], decoded.object_score > 0)
        present = masks.flatten(1).any(dim=1)
        pointer = torch.where(present[:, None], pointer, self.no_object_pointer)
        score = MASK_SCALE * present.float() + MASK_BIAS
        return Masks(low, torch.ones(len(masks), device=masks.device), pointer, score)

    def _pointer(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Output tokens [B, C] and bool [B] -> pointers [B, C]."""
        return torch.where(visible[:, None], self.pointer_head(tokens), self.no_object_pointer)

    # Memory -----------------------------------------------------------------------------------------------------------

    def write(self, features: FrameFeatures, masks: Masks, prompted: bool) -> Tensor:
        """Spatial memories [B, hw, Cm] of a frame; the masks of a prompted frame are binarised first."""
        size = features.stride8.shape[-1] // 2
        feature = features.cells.T.reshape(1, -1, size, size)
        memory = self.memory_encoder(feature, masks.mask_logits, binarize=prompted)
        absent = (masks.object_score <= 0).to(memory.dtype)[:, None, None]
        memory = memory + absent * self.no_object_memory
        return memory if self.store_dtype is None else memory.to(self.store_dtype)

    def read(
        self, features: FrameFeatures, layout: MemoryLayout, spatial: Tensor, pointers: Tensor, max_pointers: int
    ) -> Tensor:
        """Cells conditioned on the memories of B objects with one layout.

        Args:
            spatial: [B, M, hw, Cm] memories in the order of `layout.spatial`.
            pointers: [B, P, C] object pointers in the order of `layout.pointers`.
            max_pointers: pointers that a frame attends to at most; their distances are normalised by it.

        Returns:
            [B, hw, C].
        """
        cells = features.cells
        size = round(len(cells) ** 0.5)
        grid = sine_position(size, spatial.shape[-1], self.temporal_code)  # [hw, Cm]
        index = [self.num_memories - step - 1 for step in layout.spatial]
        position = (grid + self.temporal_code[index, 0]).flatten(0, 1)  # [M * hw, Cm]
        tokens = self._pointer_tokens(pointers)
        times = torch.tensor(layout.pointers, device=cells.device, dtype=torch.float32) / max(max_pointers - 1, 1)
        tokens_position = self.pointer_time(_sine_time(times, self.channels))  # [P, Cm]
        tokens_position = tokens_position.repeat_interleave(self.channels // spatial.shape[-1], dim=0)
        return self.memory_attention(cells, spatial.flatten(1, 2).to(cells.dtype), position, tokens, tokens_position)

    def _pointer_tokens(self, pointers: Tensor) -> Tensor:
        """Each pointer [C] becomes C / Cm memory tokens: [B, P, C] -> [B, P * C / Cm, Cm]."""
        return pointers.unflatten(-1, (-1, self.temporal_code.shape[-1])).flatten(1, 2)


def _sine_time(times: Tensor, channels: int, temperature: float = 10000.0) -> Tensor:
    """Sine code of times [P] -> [P, channels]: sines, then cosines."""
    pair = torch.arange(channels // 2, device=times.device) // 2
    angle = times[:, None] / temperature ** (4 * pair / channels)
    return torch.cat([angle.sin(), angle.cos()], dim=1)
