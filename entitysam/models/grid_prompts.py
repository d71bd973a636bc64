"""Prompts on a grid: every entity query starts at its own place of the image (cf. SAM's "everything" mode).

An alternative to the PromptGenerator for small models. The published generator has to learn where to put its points;
with few training images they stay together in the middle (checkpoints/entitysam_tiny.md). Here query q begins at
point q of a square grid, and once its entity is found, at a point inside the entity's last mask.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from entitysam.layers.prompt_encoder import PromptEncoder
from entitysam.models.dual_encoder import ImageFeatures
from entitysam.models.prompt_generator import Prompts
from entitysam.registry import MODELS


@MODELS.register("grid_prompts")
class GridPrompts(nn.Module):
    """Point prompts without a confidence; the EntityDecoder predicts the entity logits.

    Each point also gives a dense prompt, a bump of one cell's width around it, and its padding token carries the image
    feature under the point, so that "the entity here" needs no search.

    Args:
        num_entities: Q, a square number.
        channels: C.
        bump: standard deviation of the bumps in cells.
        box: side of the window, in mask cells, whose mean is largest at the point inside a mask.

    Raises:
        ValueError: Q is not a square number.
    """

    grid: Tensor

    def __init__(self, num_entities: int, channels: int, bump: float = 0.7, box: int = 5):
        super().__init__()
        side = round(num_entities**0.5)
        if side * side != num_entities:
            raise ValueError(f"model.num_entities: grid_prompts needs a square number, not {num_entities}")
        self.prompt_encoder = PromptEncoder(channels)
        self.point_dense = nn.Parameter(torch.randn(channels))
        self.point_feature = nn.Linear(channels, channels)
        self.bump, self.box = bump, box
        centre = (torch.arange(side) + 0.5) / side
        y, x = torch.meshgrid(centre, centre, indexing="ij")
        self.register_buffer("grid", torch.stack([x, y], dim=-1).flatten(0, 1), persistent=False)

    def forward(self, conditioned: Tensor, features: ImageFeatures, previous_points: Tensor | None) -> Prompts:
        """Prompts of one frame.

        Args:
            conditioned: [.., Q or 1, hw, C] memory-conditioned cells; not used.
            features: of the frame, or of a batch of frames in the leading dimensions.
            previous_points: [.., Q, 2] of `next_points`; None on the first frame: the grid.
        """
        size = features.size
        image_size = 16 * size
        points = previous_points
        if points is None:
            points = (self.grid * image_size - 0.5).expand(*features.cells.shape[:-2], -1, -1)
        bumps = self._bumps(points / 16, size)  # [.., Q, hw]
        under = torch.matmul(bumps / (bumps.sum(-1, keepdim=True) + 1e-6), features.cells)  # [.., Q, C]
        point, padding = self.prompt_encoder(points, image_size).unbind(-2)
        sparse = torch.stack([point, padding + self.point_feature(under)], dim=-2)
        dense = self.prompt_encoder.no_mask.weight[0] + bumps[..., None] * self.point_dense
        return Prompts(sparse, dense, None, points)

    def _bumps(self, points: Tensor, size: int) -> Tensor:
        """Gaussians around points [.., Q, 2], in cells, on the cell centres: [.., Q, hw], 1 at the point."""
        cell = torch.arange(size, device=points.device, dtype=points.dtype) + 0.5
        along = torch.exp(-((cell - points[..., None] - 0.5 / 16) ** 2) / (2 * self.bump**2))  # [.., Q, 2, size]
        return (along[..., 1, :, None] * along[..., 0, None, :]).flatten(-2)

    @torch.no_grad()
    def next_points(self, mask_logits: Tensor, present: Tensor) -> Tensor:
        """Where the next frame's prompts are: inside the mask of an entity that is present, else back on the grid.

        Args:
            mask_logits: [.., Q, S/4, S/4]; present: bool [.., Q].

        Returns:
            [.., Q, 2] (x, y) in pixels of the S x S input: the cell around which the mask is most solid.
        """
        side = mask_logits.shape[-1]
        prob = mask_logits.float().sigmoid().flatten(0, -3)[:, None]
        solid = F.avg_pool2d(prob, self.box, 1, self.box // 2)  # [.. * Q, 1, S/4, S/4]
        best = solid.flatten(1).argmax(1).view(present.shape)
        inside = torch.stack([best % side, best // side], dim=-1) * 4.0 + 1.5
        return torch.where(present[..., None], inside, self.grid * (4 * side) - 0.5).to(self.grid.dtype)
