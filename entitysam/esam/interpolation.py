"""Bilinear resampling of a window of a map; window borders may lie between cells."""

import torch
from torch import Tensor


def taps(
    window: tuple[int, int], scale: float, cells: int, device: torch.device | str
) -> tuple[Tensor, Tensor, Tensor]:
    """Source cells and weights along one axis, as in bilinear interpolation with align_corners=False.

    Args:
        window: first sample and one past the last sample.
        scale: cells per sample.
        cells: number of cells; positions outside are clamped.

    Returns:
        int64 [n] the cell before each sample, int64 [n] the one after, float32 [n] weight of the latter in 0..1.
    """
    position = ((torch.arange(*window, device=device) + 0.5) * scale - 0.5).clamp(0, cells - 1)
    low = position.floor().long()
    return low, (low + 1).clamp(max=cells - 1), position - low


def resample(
    maps: Tensor, rows: tuple[int, int], columns: tuple[int, int], row_scale: float, column_scale: float
) -> Tensor:
    """Bilinearly resamples a window of maps.

    Args:
        maps: float [..., h, w].
        rows, columns: first sample and one past the last sample along each axis.
        row_scale, column_scale: cells per sample.

    Returns:
        float [..., rows, columns].
    """
    low, high, weight = taps(columns, column_scale, maps.shape[-1], maps.device)
    maps = torch.lerp(maps[..., low], maps[..., high], weight.to(maps.dtype))  # [..., h, columns]
    low, high, weight = taps(rows, row_scale, maps.shape[-2], maps.device)
    return torch.lerp(maps[..., low, :], maps[..., high, :], weight.to(maps.dtype)[:, None])
