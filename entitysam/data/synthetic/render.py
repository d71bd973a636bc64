"""Synthetic videos with exact entity ids: random videos, and the clip of `make demo`."""

from collections.abc import Sequence

import numpy as np

from entitysam.data.synthetic.demo import demo_clip
from entitysam.data.synthetic.random_scene import CATEGORIES, random_scene
from entitysam.data.synthetic.scene import Scene, render_frame

__all__ = ["CATEGORIES", "DEFAULT_SIZE", "demo_clip", "render", "render_video"]
DEFAULT_SIZE = (192, 320)


def render_video(
    seed: int | Sequence[int], num_frames: int, size: tuple[int, int] = DEFAULT_SIZE
) -> tuple[np.ndarray, np.ndarray, dict[int, int]]:
    """Renders a random video; deterministic in its arguments.

    Args:
        seed: one number or several, e.g. (seed, split, index).
        num_frames: T >= 1; 1 gives a still image.
        size: (height, width) in pixels.

    Returns:
        frames uint8 [T, H, W, 3] RGB; ids int32 [T, H, W] > 0, constant over time; category id of every entity id. An
        entity may be invisible on some or all frames.
    """
    rng = np.random.default_rng(seed)
    scene = random_scene(rng, num_frames, size)
    return (*render(scene, num_frames, size, rng), scene.categories())


def render(
    scene: Scene, num_frames: int, size: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Renders frames uint8 [T, H, W, 3] and ids int32 [T, H, W] of a scene at times 0, 1, ..."""
    painted = [render_frame(scene, time, size, rng) for time in range(num_frames)]
    return np.stack([frame for frame, _ in painted]), np.stack([ids for _, ids in painted])
