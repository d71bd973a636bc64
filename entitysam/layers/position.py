"""Position codes of SAM and SAM 2: sine, random Fourier, and rotations (axial RoPE)."""

import math

import torch
from torch import Tensor, nn


def sine_position(size: int, channels: int, like: Tensor, temperature: float = 10000.0) -> Tensor:
    """Fixed sine code of a square grid, normalised to one turn per side (DETR; SAM 2's `PositionEmbeddingSine`).

    Args:
        size: cells per side.
        channels: C; the first half encodes rows, the second half columns.
        like: gives device and dtype.

    Returns:
        [size * size, C], row-major.
    """
    half = channels // 2
    coordinate = torch.arange(1, size + 1, device=like.device, dtype=torch.float32)
    coordinate = coordinate / (size + 1e-6) * (2 * math.pi)
    pair = torch.arange(half, device=like.device) // 2
    angle = coordinate[:, None] / temperature ** (2 * pair / half)  # [size, C / 2]
    # [size, C / 2], sine and cosine in turn
    code = torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], dim=2).flatten(1)
    rows = code[:, None].expand(size, size, half)
    columns = code[None].expand(size, size, half)
    return torch.cat([rows, columns], dim=2).flatten(0, 1).to(like.dtype)


def position_table(size: int, channels: int) -> Tensor:
    """Initial values of a learned position table: waves of half a turn to four turns per side with amplitude 0.5.

    With values near 0 positions cannot be told apart until the table is learned; released weights replace it.

    Args:
        size: cells per side.
        channels: a multiple of 4.

    Returns:
        [size * size, channels], row-major; the first half encodes columns, the second half rows.
    """
    turns = torch.linspace(0.5, 4, channels // 4)
    angle = 2 * math.pi * torch.linspace(0, 1, size)[:, None] * turns
    waves = 0.5 * torch.cat([angle.sin(), angle.cos()], dim=1)  # [size, channels / 2]
    columns, rows = waves[None].expand(size, -1, -1), waves[:, None].expand(-1, size, -1)
    return torch.cat([columns, rows], dim=2).flatten(0, 1)


class RandomFourierPosition(nn.Module):
    """Position code by random spatial frequencies (SAM's `PositionEmbeddingRandom`).

    Args:
        channels: C of the code.
    """

    frequencies: Tensor

    def __init__(self, channels: int = 256):
        super().__init__()
        self.register_buffer("frequencies", torch.randn(2, channels // 2))

    def forward(self, points_norm: Tensor) -> Tensor:
        """Code of points (x, y) in [0, 1]: [..., 2] -> [..., C]."""
        angle = 2 * math.pi * ((2 * points_norm - 1) @ self.frequencies.to(points_norm.dtype))  # [..., C / 2]
        return torch.cat([angle.sin(), angle.cos()], dim=-1)

    def grid(self, size: int) -> Tensor:
        """Code of the cell centres of a square grid: [size * size, C], row-major."""
        centre = (torch.arange(size, device=self.frequencies.device, dtype=self.frequencies.dtype) + 0.5) / size
        y, x = torch.meshgrid(centre, centre, indexing="ij")
        return self(torch.stack([x, y], dim=-1)).flatten(0, 1)


def axial_rotation(
    size: int, channels: int, like: Tensor, theta: float = 10000.0, pool: int = 1
) -> tuple[Tensor, Tensor]:
    """Cosine and sine of axial RoPE on a square grid: the first C/4 channel pairs encode x, the rest y (RoPE-ViT).

    Args:
        size: cells per side.
        channels: C.
        like: gives the device.
        theta: base of the frequencies.
        pool: the cells are means of pool x pool cells of a finer grid, whose coordinates are used: that of a cell is the mean.

    Returns:
        two float32 tensors [size * size, C / 2], for `rotate`.
    """
    frequency = 1.0 / theta ** (torch.arange(0, channels, 4, device=like.device).float() / channels)  # [C / 4]
    cell = torch.arange(size * size, device=like.device)
    x, y = (pool * (cell % size) + (pool - 1) / 2, pool * (cell // size) + (pool - 1) / 2)
    angle = torch.cat([torch.outer(x.float(), frequency), torch.outer(y.float(), frequency)], dim=1)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotates neighbouring channel pairs (2c, 2c + 1) by an angle per cell and pair.

    Args:
        x: [.., N, C].
        cosine, sine: [N, C/2] of the angles.

    Returns:
        [.., N, C] in the dtype of x, computed in float32. On a CPU by complex numbers, in one pass over x; compilers and
        MPS are faster without them.
    """
    pairs = x.float().unflatten(-1, (-1, 2))  # [.., N, C] -> [.., N, C / 2, 2]
    if x.device.type == "cpu" and not torch.compiler.is_compiling():
        turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.complex(cosine, sine))  # [.., N, C/2, 2]
    else:
        first, second = pairs.unbind(-1)
        turned = torch.stack([first * cosine - second * sine, first * sine + second * cosine], dim=-1)
    return turned.flatten(-2).to(x.dtype)
