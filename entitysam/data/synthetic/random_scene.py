"""Random synthetic scenes.

A scene has two to four background regions (stuff), so that every pixel belongs to an entity, and things that move,
deform, occlude each other, enter and leave the frame under a moving camera. Some are hard: two things with the same
appearance, or a thing with the texture of the background.
"""

import cv2
import numpy as np

from entitysam.data.synthetic import textures
from entitysam.data.synthetic.scene import Layer, Motion, Scene
from entitysam.data.synthetic.shapes import FAMILIES, Shape, hill, random_shape, side

Random = np.random.Generator
THINGS = tuple(FAMILIES)
STUFF = ("sky", "ground", "wall", "water")
CATEGORIES = [
    {"id": index, "name": name, "isthing": int(name in THINGS), "supercategory": "thing" if name in THINGS else "stuff"}
    for index, name in enumerate(THINGS + STUFF)
]
CATEGORY_ID = {name: index for index, name in enumerate(THINGS + STUFF)}
BACKGROUND_EXTENT = 1.6  # side of a background tile in frame heights
THING_EXTENT = 2.2  # side of a thing's tile in local units: the shape and a margin for deformation


def random_scene(rng: Random, num_frames: int, size: tuple[int, int]) -> Scene:
    """Draws backgrounds, 3 to 12 things and the camera; all randomness comes from `rng`."""
    aspect = size[1] / size[0]
    layers = _backgrounds(rng, aspect)
    front_hill = layers.pop() if rng.random() < 0.3 and len(layers) > 2 else None
    things: list[Layer] = []
    for _ in range(int(rng.integers(3, 13))):
        things.append(_thing(rng, layers, things, num_frames, size))
    if front_hill is not None:  # some things are behind the nearest region
        things.insert(len(things) // 3, front_hill)
    camera = _camera(rng, num_frames) if num_frames > 1 and rng.random() < 0.6 else Motion()
    noise = rng.uniform(0, 6) if rng.random() < 0.6 else 0.0
    return Scene([*layers, *things], camera, rng.uniform(0.8, 1.15), noise)


def _backgrounds(rng: Random, aspect: float) -> list[Layer]:
    """One region that covers the frame, then sides and hills in front of it; one region per stuff category."""
    back, aside = rng.permutation(["sky", "wall"])
    near = list(rng.permutation(["ground", "water"]))
    layers = [region(rng, back, None, 0.5)]
    regions = int(rng.integers(2, 5))
    if regions == 4 or (regions == 3 and rng.random() < 0.5):
        position = rng.choice([-1, 1]) * rng.uniform(0.15, 0.38) * aspect
        layers.append(region(rng, aside, side(rng, position, 8), 0.7))
    hills = regions - len(layers)
    levels = [rng.uniform(0.0, 0.3)] if hills == 1 else [rng.uniform(-0.1, 0.12), rng.uniform(0.22, 0.35)]
    layers += [region(rng, near[i], hill(rng, levels[i], 2 + aspect, 8), 0.8 + 0.1 * i) for i in range(hills)]
    return layers


def region(rng: Random, name: str, shape: Shape | None, parallax: float) -> Layer:
    texture = stuff_texture(rng, name, 288)
    return Layer(CATEGORY_ID[name], shape, texture, BACKGROUND_EXTENT, parallax=parallax)


def stuff_texture(rng: Random, name: str, size: int) -> np.ndarray:
    """uint8 [size, size, 3]; each stuff category has its own patterns and, with probability 0.7, its own hues."""
    hues = {"sky": (0.52, 0.66), "ground": (0.06, 0.36), "wall": (0.0, 1.0), "water": (0.45, 0.6)}[name]
    if rng.random() < 0.3:
        hues = (0.0, 1.0)
    bright = (0.6, 1.0) if name == "sky" else (0.25, 0.85)
    first, second = textures.random_colour(rng, hues, bright), textures.random_colour(rng, hues, bright)
    if name in ("ground", "wall") and rng.random() < 0.3:
        photograph = str(rng.choice(["grass.png", "gravel.png"])) if name == "ground" else "brick.png"
        return textures.finish(rng, textures.photo(rng, size, first, second, photograph))
    paints = {
        "sky": (textures.gradient, textures.clouds),
        "ground": (textures.grain, textures.clouds),
        "wall": (textures.bricks, textures.stripes, textures.checks),
        "water": (textures.marble,),
    }[name]
    return textures.finish(rng, paints[rng.integers(len(paints))](rng, size, first, second))


def _thing(rng: Random, backgrounds: list[Layer], others: list[Layer], num_frames: int, size: tuple[int, int]) -> Layer:
    family = str(rng.choice(THINGS))
    radius = np.exp(rng.uniform(np.log(0.07), np.log(0.28)))
    shape = random_shape(rng, family)
    tile = int(np.clip(THING_EXTENT * radius * size[0], 32, 512))
    texture = _findable_texture(rng, backgrounds, tile)
    draw = rng.random()
    if draw < 0.03:  # texture of a background
        texture = cv2.resize(backgrounds[rng.integers(len(backgrounds))].texture, (tile, tile))
    elif draw < 0.15 and others:  # appearance of another thing
        twin = others[rng.integers(len(others))]
        family, texture = THINGS[twin.category], twin.texture
        shape = twin.shape or shape
    motion = _path(rng, radius, num_frames, size)
    clock, parallax = rng.uniform(0, 100), rng.uniform(0.95, 1.2)
    return Layer(CATEGORY_ID[family], shape, texture, THING_EXTENT, motion, parallax, clock)


def _findable_texture(rng: Random, backgrounds: list[Layer], tile: int) -> np.ndarray:
    """The first of at most four textures whose mean colour differs from those of all backgrounds."""
    means = np.array([cv2.mean(layer.texture)[:3] for layer in backgrounds])
    for _ in range(4):
        texture = textures.thing_texture(rng, tile)
        if np.linalg.norm(means - cv2.mean(texture)[:3], axis=1).min() > 45:
            break
    return texture


def _path(rng: Random, radius: float, num_frames: int, size: tuple[int, int]) -> Motion:
    """Motion of a thing: about 20 % enter the frame during the video and 20 % leave it."""
    half = np.array([size[1] / size[0] / 2, 0.5])
    pace = min(1.0, 24 / num_frames)  # long videos: the same distance as 24 frames
    position = rng.uniform(-0.9, 0.9, 2) * half
    heading, speed = rng.uniform(0, 2 * np.pi), pace * rng.uniform(0, 0.022)
    velocity = speed * np.array([np.cos(heading), np.sin(heading)])
    draw = rng.random()
    if draw < 0.4 and num_frames > 3:
        position, velocity = _crossing(rng, radius, num_frames, half, arrives=draw < 0.2)
    return Motion(
        position=tuple(position),
        velocity=tuple(velocity),
        sway=tuple(rng.uniform(0, 0.04, 2)),
        rate=rng.uniform(0.2, 0.6),
        phase=rng.uniform(0, 2 * np.pi),
        angle=rng.normal(0, 0.5),
        spin=pace * rng.normal(0, 0.03),
        scale=radius,
        growth=pace * rng.normal(0, 0.01),
    )


def _crossing(
    rng: Random, radius: float, num_frames: int, half: np.ndarray, arrives: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Position at frame 0 and velocity of a thing that is inside the frame at one time and just outside at another."""
    inside = rng.uniform(-0.8, 0.8, 2) * half
    outside = inside.copy()
    axis = int(rng.integers(2))
    sign = rng.choice([-1, 1])
    inside[axis] = sign * half[axis] * rng.uniform(0.3, 0.8)
    outside[axis] = sign * (half[axis] + 1.1 * radius)
    early, late = rng.uniform(0.1, 0.35) * num_frames, rng.uniform(0.65, 0.9) * num_frames
    start, end = (outside, inside) if arrives else (inside, outside)
    velocity = (end - start) / (late - early)
    return start - early * velocity, velocity


def _camera(rng: Random, num_frames: int) -> Motion:
    pace = min(1.0, 24 / num_frames)
    return Motion(
        velocity=tuple(pace * rng.normal(0, 0.006, 2)),
        sway=tuple(rng.uniform(0, 0.03, 2)),
        rate=rng.uniform(0.1, 0.5),
        phase=rng.uniform(0, 2 * np.pi),
        spin=pace * rng.normal(0, 0.004),
        growth=pace * rng.normal(0, 0.004),
    )
