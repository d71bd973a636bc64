"""Geometry of one view for MASA, separate from pixels so that both can be tested.

In order (published pipeline): random affine; MixUp with a second image; large-scale jitter, crop or padding to the
square, horizontal flip. The steps are composed into one affine map, so that pixels are resampled once.
"""

from dataclasses import dataclass

import numpy as np

from entitysam.registry import ConfigError


@dataclass(frozen=True)
class ViewRanges:
    """Ranges of the parameters of a view.

    Attributes:
        rotation: maximum angle in degrees, in both directions.
        shear: likewise.
        translation: maximum shift relative to width and height.
        zoom: range of the scale of the affine map.
        jitter: range of the large-scale jitter; at 1 the longer side of the image equals the side of the square.
        flip: probability of a horizontal flip.
        mixup: probability of a second image.
        mixup_zoom: range of the scale of the second image; at 1 it just fits into the first.
    """

    rotation: float = 10.0
    shear: float = 2.0
    translation: float = 0.1
    zoom: tuple[float, float] = (0.5, 1.5)
    jitter: tuple[float, float] = (0.1, 2.0)
    flip: float = 0.5
    mixup: float = 1.0
    mixup_zoom: tuple[float, float] = (0.8, 1.6)

    def __post_init__(self) -> None:
        for name in ("zoom", "jitter", "mixup_zoom"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ConfigError(f"{name} {[low, high]} must be [low, high] with 0 < low <= high")
        for name in ("flip", "mixup"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} {getattr(self, name)} is outside 0..1")
        if min(self.rotation, self.shear, self.translation) < 0:
            raise ConfigError("rotation, shear and translation must not be negative")


@dataclass(frozen=True)
class View:
    """Geometry of one view.

    Attributes:
        affine: [2, 3] map from (x, y) in the image to (x, y) in the square, in pixels; pixel (0, 0) covers [0, 1)^2.
        window: float32 (x1, y1, x2, y2) of the image frame in the square; the rest is padding.
        partner: [2, 3] map of the second image; None without MixUp.
        partner_window: part of `window` that the frame of the second image covers.
    """

    affine: np.ndarray
    window: np.ndarray
    partner: np.ndarray | None = None
    partner_window: np.ndarray | None = None


def draw_view(
    rng: np.random.Generator,
    shape: tuple[int, int],
    partner_shape: tuple[int, int] | None,
    size: int,
    ranges: ViewRanges,
) -> View:
    """Draws the geometry of a view.

    Args:
        shape: (H, W) of the image.
        partner_shape: (H, W) of the second image, None without one.
        size: S, side of the square.
    """
    inner = random_affine(rng, shape, ranges)
    mixed = partner_shape is not None and rng.random() < ranges.mixup
    place = place_partner(rng, shape, partner_shape, ranges) if mixed and partner_shape else None
    outer, frame = jitter_crop_flip(rng, shape, size, ranges)
    window = box_under(outer, (0, 0, shape[1], shape[0]), frame)
    if place is None or partner_shape is None:
        return View((outer @ inner)[:2], window)
    partner_window = box_under(outer @ place, (0, 0, partner_shape[1], partner_shape[0]), window)
    return View((outer @ inner)[:2], window, (outer @ place)[:2], partner_window)


def random_affine(rng: np.random.Generator, shape: tuple[int, int], ranges: ViewRanges) -> np.ndarray:
    """[3, 3] rotation, zoom and shear about the centre of the image, then a translation."""
    height, width = shape
    angle = np.deg2rad(rng.uniform(-ranges.rotation, ranges.rotation))
    zoom = rng.uniform(*ranges.zoom)
    shear_x, shear_y = np.tan(np.deg2rad(rng.uniform(-ranges.shear, ranges.shear, 2)))
    shift = rng.uniform(-ranges.translation, ranges.translation, 2) * (width, height)
    turn = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = np.array([[1, shear_x], [shear_y, 1]]) @ turn
    middle = np.array([width, height]) / 2
    return _homogeneous(linear, middle - linear @ middle + shift)


def place_partner(
    rng: np.random.Generator, shape: tuple[int, int], partner_shape: tuple[int, int], ranges: ViewRanges
) -> np.ndarray:
    """[3, 3] map from the second image to the frame of the first: scaled to fit, zoomed, flipped with probability
    `flip`; a larger second image is shifted at random, a smaller one lies in the top left corner."""
    scale = min(shape[0] / partner_shape[0], shape[1] / partner_shape[1]) * rng.uniform(*ranges.mixup_zoom)
    mirror = rng.random() < ranges.flip
    room = np.array(shape[::-1]) - scale * np.array(partner_shape[::-1])
    shift = rng.random(2) * np.minimum(room, 0)
    linear = np.diag([-scale if mirror else scale, scale])
    return _homogeneous(linear, shift + (scale * partner_shape[1] if mirror else 0, 0))


def jitter_crop_flip(
    rng: np.random.Generator, shape: tuple[int, int], size: int, ranges: ViewRanges
) -> tuple[np.ndarray, np.ndarray]:
    """[3, 3] map from the frame to the square, and the square (0, 0, S, S). A smaller frame lies in the top left corner
    and is flipped in place."""
    height, width = shape
    scale = size / max(height, width) * rng.uniform(*ranges.jitter)
    room = np.maximum(scale * np.array([width, height]) - size, 0)
    shift = -rng.random(2) * room
    outer = _homogeneous(np.diag([scale, scale]), shift)
    if rng.random() < ranges.flip:
        shown = min(scale * width, size)
        outer = _homogeneous(np.diag([-1.0, 1.0]), np.array([shown, 0])) @ outer
    return outer, np.array([0, 0, size, size], np.float32)


def box_under(affine: np.ndarray, box: tuple[float, ...], window: np.ndarray) -> np.ndarray:
    """A box under an axis-parallel map [3, 3], clipped to a window: float32 (x1, y1, x2, y2)."""
    corners = np.array([box[:2], box[2:]]) @ affine[:2, :2].T + affine[:2, 2]
    low, high = np.maximum(corners.min(0), window[:2]), np.minimum(corners.max(0), window[2:])
    return np.concatenate([low, np.maximum(low, high)]).astype(np.float32)


def _homogeneous(linear: np.ndarray, shift: np.ndarray) -> np.ndarray:
    return np.block([[linear, np.asarray(shift, float)[:, None]], [np.zeros((1, 2)), np.ones((1, 1))]])
