"""Textures of the synthetic scenes: procedural ones, and crops of photographs from the wheel of scikit-image.

All randomness comes from `rng`. Tiles are uint8 [size, size, 3] RGB.
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import skimage

from entitysam.data.images import read_image

Random = np.random.Generator
# Files inside the wheel; scikit-image downloads its other images.
PHOTOGRAPHS = (
    "astronaut.png",
    "brick.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "page.png",
    "retina.jpg",
    "rocket.jpg",
)


def random_colour(rng: Random, hue: tuple[float, float] = (0, 1), value: tuple[float, float] = (0.3, 1)) -> np.ndarray:
    """float32 [3] RGB in 0..255 with hue (0..1 of the circle) and brightness in the given ranges."""
    hsv = np.array([rng.uniform(*hue) % 1 * 360, rng.uniform(0.25, 0.95), rng.uniform(*value)], np.float32)
    return cv2.cvtColor(hsv[None, None], cv2.COLOR_HSV2RGB)[0, 0] * 255


def fractal_noise(rng: Random, size: int, cells: int = 3, octaves: int = 4) -> np.ndarray:
    """float32 [size, size] in 0..1: sum of random grids of side `cells`, 2 `cells`, ... with amplitudes 1, 1/2, ..."""
    noise = np.zeros((size, size), np.float32)
    for octave in range(octaves):
        side = min(cells * 2**octave, size)
        grid = rng.random((side, side), np.float32)
        noise += cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC) / 2**octave
    low, high = noise.min(), noise.max()
    return (noise - low) / max(high - low, 1e-6)


def _coordinates(rng: Random, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixel coordinates, rotated by a random angle, relative to the tile: two float32 [size, size]."""
    angle = rng.uniform(0, np.pi)
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def _blend(share: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return first + (second - first) * share[..., None]


def gradient(rng: Random, size: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    u, _ = _coordinates(rng, size)
    ramp = (u - u.min()) / (u.max() - u.min())
    return _blend(0.8 * ramp + 0.2 * fractal_noise(rng, size, 2, 2), first, second)


def stripes(rng: Random, size: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    u, _ = _coordinates(rng, size)
    phase = 2 * np.pi * rng.uniform(3, 9) * (u + rng.uniform(0, 0.06) * fractal_noise(rng, size, 2, 2))
    return _blend(np.clip(0.5 + rng.uniform(1, 5) * np.sin(phase), 0, 1), first, second)


def checks(rng: Random, size: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    u, v = _coordinates(rng, size)
    frequency = rng.uniform(3, 8)
    wave = np.sin(2 * np.pi * frequency * u) * np.sin(2 * np.pi * frequency * v)
    return _blend(np.clip(0.5 + 6 * wave, 0, 1), first, second)


def dots(rng: Random, size: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    u, v = _coordinates(rng, size)
    frequency, radius = rng.uniform(4, 9), rng.uniform(0.2, 0.4)
    distance = np.hypot((u * frequency) % 1 - 0.5, (v * frequency) % 1 - 0.5)
    return _blend(np.clip((radius - distance) * 8 + 0.5, 0, 1), first, second)


def clouds(rng: Random, size: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return _blend(fractal_noise(rng, size, int(rng.integers(2, 8)), 4), first, second)


def grain(rng: Random, size: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return _blend(fractal_noise(rng, size, max(size // 6, 2), 3), first, second)


def marble(rng: Random, size: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    u, _ = _coordinates(rng, size)
    phase = 2 * np.pi * (rng.uniform(2, 5) * u + rng.uniform(0.6, 1.6) * fractal_noise(rng, size, 3, 4))
    return _blend(0.5 + 0.5 * np.sin(phase), first, second)


def bricks(rng: Random, size: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    rows = int(rng.integers(5, 10))
    y, x = np.mgrid[:size, :size].astype(np.float32) / size * rows
    row = np.floor(y)
    across = x / 2 + 0.5 * (row % 2)
    stone = rng.random((rows, rows + 2), np.float32)[row.astype(int), np.floor(across).astype(int)]
    mortar = ((y % 1) < 0.14) | ((across % 1) < 0.07)
    return _blend(np.where(mortar, 1, 0.35 * stone).astype(np.float32), first, second)


@lru_cache(maxsize=len(PHOTOGRAPHS))
def photograph(name: str) -> np.ndarray:
    """uint8 [H, W, 3] RGB, one of `PHOTOGRAPHS`, read from the installed package."""
    return read_image(Path(skimage.__file__).parent / "data" / name)


def photo(rng: Random, size: int, first: np.ndarray, second: np.ndarray, name: str = "") -> np.ndarray:
    """A random square of a photograph; with probability 0.5 its grey values are mapped to the two colours."""
    image = photograph(name or PHOTOGRAPHS[rng.integers(len(PHOTOGRAPHS))])
    side = int(min(image.shape[:2]) * rng.uniform(0.25, 0.7))
    top, left = (int(rng.integers(0, limit - side + 1)) for limit in image.shape[:2])
    crop = cv2.resize(image[top : top + side, left : left + side], (size, size), interpolation=cv2.INTER_AREA)
    if rng.random() < 0.5:
        return crop.astype(np.float32)
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return _blend((grey - grey.min()) / max(float(np.ptp(grey)), 1.0), first, second)


Texture = Callable[[Random, int, np.ndarray, np.ndarray], np.ndarray]
PROCEDURAL: tuple[Texture, ...] = (gradient, stripes, checks, dots, clouds, grain, marble, bricks)


def finish(rng: Random, tile: np.ndarray) -> np.ndarray:
    """Applies a linear shading to a float tile and converts it to uint8."""
    u, _ = _coordinates(rng, len(tile))
    ramp = (u - u.mean()) / np.ptp(u)
    return np.clip(tile * (1 + rng.uniform(0, 0.5) * ramp[..., None]), 0, 255).astype(np.uint8)


def thing_texture(rng: Random, size: int) -> np.ndarray:
    """A tile in two random colours: a photograph with probability 0.25, otherwise procedural."""
    first, second = random_colour(rng), random_colour(rng, value=(0.1, 1))
    paint = photo if rng.random() < 0.25 else PROCEDURAL[rng.integers(len(PROCEDURAL))]
    return finish(rng, paint(rng, size, first, second))
