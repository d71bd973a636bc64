"""Synthetic clips in which things leave the frame and return, to evaluate re-identification."""

from collections.abc import Sequence

import numpy as np

from entitysam.data.synthetic.random_scene import random_scene
from entitysam.data.synthetic.render import DEFAULT_SIZE, render
from entitysam.data.synthetic.scene import Layer, Motion

INSIDE = 0.75  # a leaving thing starts within this share of half the frame
MARGIN = 1.6  # distance from the border in radii at the far end, where the thing is invisible


def render_returning(
    seed: int | Sequence[int], num_frames: int = 24, size: tuple[int, int] = DEFAULT_SIZE, leaving: float = 0.5
) -> tuple[np.ndarray, np.ndarray, dict[int, int]]:
    """Renders a random clip with a static camera; deterministic in its arguments.

    Args:
        seed: one number or several.
        num_frames: T.
        size: (height, width) in pixels.
        leaving: share of the things that leave the frame horizontally and return before the end.

    Returns:
        frames uint8 [T, H, W, 3] RGB; ids int32 [T, H, W], never 0; category id of every entity id.
    """
    rng = np.random.default_rng(seed)
    scene = random_scene(rng, num_frames, size)
    scene.camera = Motion()
    for layer in scene.layers:
        if layer.shape is not None and layer.motion.scale < 1 and rng.random() < leaving:
            _swing_out(layer, rng, num_frames, size)
    return (*render(scene, num_frames, size, rng), scene.categories())


def new_at_return(ids: np.ndarray) -> np.ndarray:
    """int32 [T, H, W] entity ids 1..n, in which an entity gets a new id each time it returns to the frame."""
    result, count = np.zeros_like(ids), 0
    known: dict[int, int] = {}
    for frame, painted in enumerate(ids):
        seen = {}
        for number in np.unique(painted[painted > 0]).tolist():
            if number not in known:
                count += 1
            seen[number] = known.get(number, count)
            result[frame][painted == number] = seen[number]
        known = seen
    return result


def _swing_out(layer: Layer, rng: np.random.Generator, num_frames: int, size: tuple[int, int]) -> None:
    """Sets the motion of a thing to one oscillation out of the frame and back: x(t) = x0 + reach / 2 * (1 - cos(2 pi t / T))."""
    half = np.array([size[1] / size[0] / 2, 0.5])
    place = rng.uniform(-INSIDE, INSIDE, 2) * half
    side = 1.0 if place[0] > 0 else -1.0
    reach = side * (half[0] + MARGIN * layer.motion.scale) - place[0]
    layer.motion = Motion(
        position=(float(place[0]), float(place[1])),
        sway=(float(reach) / 2, 0.0),
        rate=2 * np.pi / num_frames,
        phase=-np.pi / 2,
        angle=layer.motion.angle,
        scale=layer.motion.scale,
    )
