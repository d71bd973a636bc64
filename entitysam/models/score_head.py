"""A score that sees the masks: what an entity's mask covers, how certain it is, and who else claims the same place."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MaskAwareScore(nn.Module):
    """Refines the IoU tokens by the predicted masks before the IoU and entity heads.

    In the published decoder the IoU token never meets the mask, and duplicates of a mask cannot be told from the original.
    Here each token receives the features and the shape of its mask, and then looks at the other tokens with an
    attention that is drawn to masks that overlap its own (cf. Hu et al., Relation Networks, 2018). No gradient flows to
    the masks.

    Args:
        channels: C; heads: of the attention.
    """

    statistics = 3  # area, its square root, certainty

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.pooled = nn.Linear(channels + self.statistics, channels)
        self.norm1 = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out_proj = nn.Linear(channels, channels)
        self.overlap_weight = nn.Parameter(torch.linspace(0, 8, heads))
        self.norm2 = nn.LayerNorm(channels)

    def forward(self, tokens: Tensor, cells: Tensor, mask_logits: Tensor) -> Tensor:
        """tokens [.., Q, C], cells [.., Q, hw, C], mask_logits [.., Q, S/4, S/4] -> tokens [.., Q, C]."""
        prob = mask_logits.detach().float().sigmoid()
        coarse = F.avg_pool2d(prob.flatten(0, -3)[:, None], 4).view(cells.shape[:-1])  # [.., Q, hw]
        mass = coarse.sum(-1, keepdim=True)
        covered = torch.matmul((coarse / (mass + 1e-3)).to(cells.dtype).unsqueeze(-2), cells).squeeze(-2)  # [.., Q, C]
        inside = (prob > 0.5).float()
        certainty = (prob * inside).sum((-2, -1)) / (inside.sum((-2, -1)) + 1e-3)
        area = mass[..., 0] / coarse.shape[-1]
        shape = torch.stack([area, area.sqrt(), certainty], dim=-1).to(tokens.dtype)
        tokens = self.norm1(tokens + self.pooled(torch.cat([covered, shape], dim=-1)))
        shared = coarse @ coarse.transpose(-2, -1)
        overlap = shared / (mass + mass.transpose(-2, -1) - shared + 1e-3)  # [.., Q, Q] soft IoU
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(-3, -2) for x in self.qkv(tokens).chunk(3, dim=-1))
        logits = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5  # [.., heads, Q, Q]
        logits = logits + self.overlap_weight[:, None, None] * overlap.unsqueeze(-3)
        mixed = (logits.softmax(-1).to(v.dtype) @ v).transpose(-3, -2).flatten(-2)
        return self.norm2(tokens + self.out_proj(mixed))
