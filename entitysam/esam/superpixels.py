"""Superpixels of the image and their density map (E-SAM, section 3.2, Eq. 3)."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from skimage.segmentation import felzenszwalb, slic
from torch import Tensor

from entitysam.registry import ConfigError


@dataclass(frozen=True)
class SuperpixelConfig:
    """Attributes:
    method: "felzenszwalb" (the paper's) or "slic" (compared in its supplement).
    scale, sigma, min_size: Felzenszwalb's parameters (ours: the paper gives none).
    num_segments, compactness: SLIC's parameters (ours: scikit-image's compactness, a comparable number of segments).
    max_side: maximum longer side in pixels of the image they are computed on (ours).
    """

    method: str = "felzenszwalb"
    scale: float = 300.0
    sigma: float = 0.8
    min_size: int = 50
    num_segments: int = 300
    compactness: float = 10.0
    max_side: int = 512

    def __post_init__(self) -> None:
        if self.method not in ("felzenszwalb", "slic"):
            raise ConfigError(f"method: no method called '{self.method}'; known: felzenszwalb, slic")
        if self.max_side < 1:
            raise ConfigError(f"max_side: must be at least 1, not {self.max_side}")


@dataclass
class Superpixels:
    """A partition of the mask grid.

    Attributes:
        labels: int64 [h, w] in 0..K-1, every label present.
        areas: float32 [K] in cells.
        centroids: float32 [K, 2] as (x, y) in cells of the grid; the centre of cell (0, 0) is (0.5, 0.5).
        density: float32 [h, w] map D of Eq. (3) in 0..1.
    """

    labels: Tensor
    areas: Tensor
    centroids: Tensor
    density: Tensor

    def __len__(self) -> int:
        return len(self.areas)


def compute_superpixels(
    image: Tensor, size: tuple[int, int], config: SuperpixelConfig, device: torch.device | None = None
) -> Superpixels:
    """Superpixels of an image, sampled on the mask grid.

    Args:
        image: uint8 [3, H, W] RGB.
        size: (h, w) of the mask grid.

    Returns:
        Superpixels on `device` (default: that of `image`). Superpixels without a cell centre are removed.
    """
    pixels = _shrink(image, config.max_side)
    if config.method == "slic":
        found = slic(pixels, n_segments=config.num_segments, compactness=config.compactness, start_label=0)
    else:
        found = felzenszwalb(pixels, scale=config.scale, sigma=config.sigma, min_size=config.min_size)
    found = torch.from_numpy(np.asarray(found, dtype=np.float32)).to(device or image.device)
    on_grid = F.interpolate(found[None, None], size, mode="nearest-exact")[0, 0].long()  # [H', W'] -> [h, w]
    return describe(on_grid)


def describe(labels: Tensor) -> Superpixels:
    """Areas, centroids and density of a label map [h, w] with any non-negative labels."""
    height, width = labels.shape
    _, flat = labels.flatten().unique(return_inverse=True)  # [h w] numbered 0..K-1
    area = torch.bincount(flat).float()
    y, x = torch.meshgrid(
        torch.arange(height, device=labels.device) + 0.5, torch.arange(width, device=labels.device) + 0.5, indexing="ij"
    )
    # In double precision: float32 sums of coordinates lose digits on large superpixels.
    centroids = torch.stack([torch.bincount(flat, weights=c.flatten().double()) for c in (x, y)], 1) / area[:, None]
    labels = flat.view(height, width)  # [h w] -> [h, w]
    return Superpixels(labels, area, centroids.float(), superpixel_weights(area)[labels])


def superpixel_weights(areas: Tensor) -> Tensor:
    """w_k of Eq. (3): inverse areas [K], min-max normalised to 0..1 (ours); all 0 if the areas are equal."""
    inverse = 1.0 / areas
    span = inverse.max() - inverse.min()
    return (inverse - inverse.min()) / span if span > 0 else torch.zeros_like(inverse)


def _shrink(image: Tensor, max_side: int) -> np.ndarray:
    """uint8 [3, H, W] -> uint8 [H', W', 3] on the host, longer side <= max_side."""
    ratio = max_side / max(image.shape[1:])
    if ratio < 1:
        size = [max(1, round(side * ratio)) for side in image.shape[1:]]
        resized = F.interpolate(image[None].float(), size, mode="area")[0]
        image = resized.round().to(torch.uint8)
    return image.permute(1, 2, 0).contiguous().cpu().numpy()
