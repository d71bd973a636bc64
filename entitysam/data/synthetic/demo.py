"""The scene of the demo clip, placed by hand."""

import numpy as np

from entitysam.data.synthetic import textures
from entitysam.data.synthetic.random_scene import CATEGORY_ID, THING_EXTENT, region
from entitysam.data.synthetic.scene import Layer, Motion, Scene
from entitysam.data.synthetic.shapes import hill, random_shape

DEMO_SIZE = (270, 480)


def demo_scene(rng: np.random.Generator, num_frames: int) -> Scene:
    """Sky and ground; in front of them, from far to near, a ball, a ring, a cart, a star and a creature."""
    pace = 24 / num_frames  # the same path for any number of frames
    sky = region(rng, "sky", None, 0.5)
    ground = region(rng, "ground", hill(rng, 0.16, 3, 8), 0.8)
    ball = Motion((-0.62, 0.14), (0.024 * pace, 0), (0.0, 0.1), 0.5 * pace, 1.5, spin=0.06 * pace, scale=0.13)
    ring = Motion((0.35, -0.2), (-0.008 * pace, 0.004 * pace), spin=0.05 * pace, scale=0.19, growth=0.008 * pace)
    cart = Motion((0.42, 0.22), (0.034 * pace, 0), scale=0.2)
    star = Motion((-1.25, -0.26), (0.034 * pace, 0.004 * pace), (0, 0.03), 0.4 * pace, 0, 0, 0.08 * pace, 0.17)
    creature = Motion((-0.2, 0.24), (0.006 * pace, 0), (0, 0.01), 0.9 * pace, scale=0.22)
    things = [
        _thing(rng, "ball", textures.checks, ball, (0.95, 1.02), pace),
        _thing(rng, "ring", textures.stripes, ring, (0.78, 0.88), pace),
        _thing(rng, "cart", textures.dots, cart, (0.0, 0.04), pace),
        _thing(rng, "star", textures.gradient, star, (0.12, 0.16), pace),
        _thing(rng, "creature", textures.marble, creature, (0.06, 0.1), pace),
    ]
    return Scene([sky, ground, *things], Motion(velocity=(0.004 * pace, 0)))


def _thing(
    rng: np.random.Generator,
    family: str,
    paint: textures.Texture,
    motion: Motion,
    hue: tuple[float, float],
    pace: float,
) -> Layer:
    colours = textures.random_colour(rng, hue, (0.85, 1.0)), textures.random_colour(rng, hue, (0.35, 0.55))
    texture = textures.finish(rng, paint(rng, 160, *colours))
    shape = random_shape(rng, family)
    for part in shape.parts:
        part.rate *= pace
    return Layer(CATEGORY_ID[family], shape, texture, THING_EXTENT, motion)
