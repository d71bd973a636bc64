"""Layered scenes: textured moving shapes and a moving camera, rendered back to front with exact entity ids.

Scene coordinates are (x, y) with the frame's centre at (0, 0) and its height as the unit; time counts frames.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import cv2
import numpy as np

from entitysam.data.synthetic.shapes import Shape

SUBPIXEL_BITS = 4
# An entity whose visible share of a frame is below this value is not rendered on that frame.
MIN_VISIBLE = 0.0005


@dataclass
class Motion:
    """Position, rotation and scale over time: linear motion with a sinusoidal sway, constant spin and constant growth.

    Attributes:
        position: (x, y) at frame 0; velocity: per frame.
        sway: (x, y) amplitude of the sway; rate: its radians per frame; phase: at frame 0.
        angle: radians, at frame 0; spin: radians per frame.
        scale: scene units per local unit at frame 0; growth: its relative change per frame.
    """

    position: tuple[float, float] = (0.0, 0.0)
    velocity: tuple[float, float] = (0.0, 0.0)
    sway: tuple[float, float] = (0.0, 0.0)
    rate: float = 0.0
    phase: float = 0.0
    angle: float = 0.0
    spin: float = 0.0
    scale: float = 1.0
    growth: float = 0.0

    def place(self, time: float) -> np.ndarray:
        """(x, y) at `time`."""
        wave = np.sin(self.rate * time + self.phase) - np.sin(self.phase)
        return np.array(self.position) + time * np.array(self.velocity) + wave * np.array(self.sway)

    def linear(self, time: float) -> np.ndarray:
        """[2, 2] rotation and scale at `time`."""
        angle, scale = self.angle + self.spin * time, self.scale * np.exp(self.growth * time)
        return scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


@dataclass
class Layer:
    """One entity.

    Attributes:
        category: category id.
        shape: outline in local coordinates; None = the whole frame.
        texture: uint8 [n, n, 3] tile, reflected beyond its borders.
        texture_extent: side of the tile in local units; its centre is (0, 0).
        motion: of the shape in the scene.
        parallax: factor on the shift of the camera; larger for nearer layers.
        clock: time of the deformation of the shape at frame 0.
    """

    category: int
    shape: Shape | None
    texture: np.ndarray
    texture_extent: float
    motion: Motion = field(default_factory=Motion)
    parallax: float = 1.0
    clock: float = 0.0


@dataclass
class Scene:
    """Layers from back to front, and the camera.

    Attributes:
        layers: back to front; the first covers the frame.
        camera: motion of the camera; `scale` is the zoom.
        brightness: factor on all pixels; noise: standard deviation of the sensor noise in grey levels.
    """

    layers: list[Layer]
    camera: Motion = field(default_factory=Motion)
    brightness: float = 1.0
    noise: float = 0.0

    def categories(self) -> dict[int, int]:
        """Entity id -> category id; the id of a layer is its position, back to front, from 1."""
        return {index + 1: layer.category for index, layer in enumerate(self.layers)}


def render_frame(
    scene: Scene, time: float, size: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Renders one frame.

    Args:
        scene: the layers and the camera.
        time: in frames.
        size: (height, width).
        rng: for the sensor noise.

    Returns:
        frame uint8 [H, W, 3] RGB and ids int32 [H, W]; a pixel has the id of the nearest layer that covers at least half
        of it.
    """
    affines = [_local_to_pixel(layer, scene.camera, time, size) for layer in scene.layers]
    coverages = [_coverage(layer, affine, time, size) for layer, affine in zip(scene.layers, affines)]
    ids = _ids(coverages, range(len(coverages)), size)
    shown = _shown(ids, len(coverages))
    if len(shown) < len(coverages):
        ids = _ids(coverages, shown, size)
    frame = np.zeros((*size, 3), np.float32)
    for index in shown:
        box, coverage = coverages[index]
        _paint(frame[box], scene.layers[index], affines[index], coverage, box)
    if scene.noise:
        frame += scene.noise * rng.standard_normal(frame.shape, np.float32)
    return np.clip(frame * scene.brightness, 0, 255).astype(np.uint8), ids


Box = tuple[slice, slice]
EMPTY: Box = (slice(0, 0), slice(0, 0))


def _local_to_pixel(layer: Layer, camera: Motion, time: float, size: tuple[int, int]) -> np.ndarray:
    """[2, 3] affine map from local coordinates of the layer to pixel indices."""
    height, width = size
    view = height * camera.linear(time)
    shift = layer.motion.place(time) - layer.parallax * camera.place(time)
    corner = np.array([width / 2, height / 2]) - 0.5
    return np.column_stack([view @ layer.motion.linear(time), view @ shift + corner])


def _coverage(layer: Layer, affine: np.ndarray, time: float, size: tuple[int, int]) -> tuple[Box, np.ndarray]:
    """Box of pixels of the layer, and uint8 coverage 0..255 inside the box.

    OpenCV draws outlines about two thirds of a pixel too wide. Image and ids use the same coverage and therefore agree.
    """
    if layer.shape is None:
        return (slice(0, size[0]), slice(0, size[1])), np.full(size, 255, np.uint8)
    parts = [
        [contour @ affine[:, :2].T + affine[:, 2] for contour in contours]
        for contours in layer.shape.contours(time + layer.clock)
    ]
    points = np.concatenate([contour for contours in parts for contour in contours])
    left, top = np.maximum(np.floor(points.min(0)).astype(int) - 1, 0)
    right, bottom = np.minimum(np.ceil(points.max(0)).astype(int) + 2, [size[1], size[0]])
    if right <= left or bottom <= top:
        return EMPTY, np.zeros((0, 0), np.uint8)
    coverage = np.zeros((bottom - top, right - left), np.uint8)
    for contours in parts:
        part = np.zeros_like(coverage)
        fixed = [np.round((contour - (left, top)) * 2**SUBPIXEL_BITS).astype(np.int32) for contour in contours]
        cv2.fillPoly(part, fixed, 255, cv2.LINE_AA, SUBPIXEL_BITS)
        np.maximum(coverage, part, out=coverage)
    return (slice(top, bottom), slice(left, right)), coverage


def _ids(coverages: list[tuple[Box, np.ndarray]], order: Iterable[int], size: tuple[int, int]) -> np.ndarray:
    ids = np.zeros(size, np.int32)
    for index in order:
        box, coverage = coverages[index]
        ids[box][coverage >= 128] = index + 1
    return ids


def _shown(ids: np.ndarray, num_layers: int) -> list[int]:
    """Indices of layers with a sufficient visible area, back to front; the first layer is always included."""
    areas = np.bincount(ids.ravel(), minlength=num_layers + 1)[1:]
    return [0, *(index for index in range(1, num_layers) if areas[index] >= MIN_VISIBLE * ids.size)]


def _paint(pixels: np.ndarray, layer: Layer, affine: np.ndarray, coverage: np.ndarray, box: Box) -> None:
    """Blends the texture of the layer into `pixels`, the float32 view of the frame at `box`."""
    tile, step = len(layer.texture), layer.texture_extent / len(layer.texture)
    to_local = np.array([[step, 0, -step * (tile - 1) / 2], [0, step, -step * (tile - 1) / 2], [0, 0, 1]])
    to_pixel = affine @ to_local
    to_pixel[:, 2] -= (box[1].start, box[0].start)
    width_height = (coverage.shape[1], coverage.shape[0])
    painted = cv2.warpAffine(
        layer.texture, to_pixel, width_height, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    pixels += (painted - pixels) * (coverage[..., None] / np.float32(255))
