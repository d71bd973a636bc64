"""Augmentations that turn an image into a clip: drawn once per clip, applied to image and ids alike.

In order: horizontal flip; rotation about one centre by angles that increase or decrease over the clip; large-scale
jitter; a crop that shifts from frame to frame; zero padding (void) on the right and at the bottom (paper, section 4.1
and supplement).

Parameters (`draw_augmentation`) do not depend on images, and `frame_affines` is pure geometry, so both are tested
separately. All steps are composed into one affine map per frame: ids and pixels are resampled once, after one area
downsampling if the image becomes smaller. The published code rotates first and then resizes the rotated image. Up to
interpolation the result is the same: both lose what the rotation moves out of the image. When downsampling, the
published code uses a triangle filter, this code averages by area.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from entitysam.registry import ConfigError


@dataclass(frozen=True)
class AugmentationRanges:
    """Ranges of the augmentation parameters.

    Attributes:
        flip_probability: of a horizontal flip.
        angle: maximum rotation in degrees, in both directions.
        centre: range of the rotation centre, relative to width and height.
        scale: range of the large-scale jitter; at 1 the longer side of the image equals the side of the square.
        shift: maximum shift of the crop of later frames, relative to the side of the square.
    """

    flip_probability: float = 0.5
    angle: float = 15.0
    centre: tuple[float, float] = (0.4, 0.6)
    scale: tuple[float, float] = (0.25, 4.0)
    shift: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.flip_probability <= 1:
            raise ConfigError(f"flip_probability {self.flip_probability} is outside 0..1")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ConfigError(f"scale {list(self.scale)} must be [low, high] with 0 < low <= high")
        if self.angle < 0 or self.shift < 0:
            raise ConfigError(f"angle {self.angle} and shift {self.shift} must not be negative")


@dataclass(frozen=True)
class Augmentation:
    """Augmentation parameters of a clip of T frames.

    Attributes:
        flip: flip horizontally.
        angles: [T] degrees counter-clockwise, ascending or descending.
        centre: [2] (x, y) of the rotation, relative to width and height.
        scale: of the jitter.
        crop: position of the crop in 0..1 of the possible range, the same in x and y.
        shifts: [T, 2] (x, y) in -1..1, relative to the maximum shift; 0 on the first frame.
    """

    flip: bool
    angles: np.ndarray
    centre: np.ndarray
    scale: float
    crop: float
    shifts: np.ndarray


def draw_augmentation(rng: np.random.Generator, num_frames: int, ranges: AugmentationRanges) -> Augmentation:
    """Draws the parameters of a clip; all randomness comes from `rng`."""
    flip = bool(rng.random() < ranges.flip_probability)
    angles = np.sort(rng.uniform(-ranges.angle, ranges.angle, num_frames))
    if rng.random() < 0.5:
        angles = angles[::-1]
    centre = rng.uniform(*ranges.centre, 2)
    scale, crop = rng.uniform(*ranges.scale), rng.random()
    shifts = rng.uniform(-1, 1, (num_frames, 2))
    shifts[0] = 0
    return Augmentation(flip, angles, centre, scale, crop, shifts)


def still_augmentation(num_frames: int) -> Augmentation:
    """Only resizes the image to the square, without randomness."""
    return Augmentation(False, np.zeros(num_frames), np.full(2, 0.5), 1.0, 0.0, np.zeros((num_frames, 2)))


def resized_shape(height: int, width: int, image_size: int, scale: float) -> tuple[int, int]:
    """(height, width) of an image whose longer side is `scale * image_size`, aspect ratio kept, at least 1 pixel."""
    factor = image_size * scale / max(height, width)
    return max(round(height * factor), 1), max(round(width * factor), 1)


def frame_affines(
    augmentation: Augmentation, height: int, width: int, image_size: int, max_shift: float
) -> tuple[np.ndarray, tuple[int, int]]:
    """Composes the affine map of every frame.

    Args:
        augmentation: parameters of the clip.
        height, width: of the image.
        image_size: S, side of the square.
        max_shift: `AugmentationRanges.shift`.

    Returns:
        float64 [T, 2, 3] affine maps from (x, y) in the image to (x, y) in the square, in pixels, where pixel (0, 0)
        covers [0, 1) x [0, 1); and (height, width) of the resized image, where the padding begins.
    """
    resized = resized_shape(height, width, image_size, augmentation.scale)
    mirror = np.array([[-1.0, 0, width], [0, 1, 0], [0, 0, 1]]) if augmentation.flip else np.eye(3)  # [3, 3]
    resize = np.diag([resized[1] / width, resized[0] / height, 1])
    offsets = crop_offsets(augmentation, resized, image_size, max_shift)
    affines = []
    for angle, (left, top) in zip(augmentation.angles, offsets):
        turn = np.eye(3)
        turn[:2] = cv2.getRotationMatrix2D((augmentation.centre * (width, height)).tolist(), float(angle), 1.0)
        crop = np.array([[1.0, 0, -left], [0, 1, -top], [0, 0, 1]])
        affines.append((crop @ resize @ turn @ mirror)[:2])  # right to left: the mirror is applied first
    return np.stack(affines), resized  # [T, 2, 3]


def crop_offsets(augmentation: Augmentation, resized: tuple[int, int], image_size: int, max_shift: float) -> np.ndarray:
    """int64 [T, 2] (x, y) of the top left corner of each crop in the resized image; 0 where the image is smaller."""
    room = np.maximum(np.array(resized[::-1]) - image_size, 0)
    reach = np.minimum(room, int(max_shift * image_size))
    start = np.round(augmentation.crop * room).astype(np.int64)
    return np.clip(start + np.trunc(augmentation.shifts * reach).astype(np.int64), 0, room)


def shrink(image: np.ndarray, resized: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Downsamples an image by area averaging; an image that would not become smaller is returned unchanged.

    Returns:
        the image, and the [3, 3] map from its (x, y) to those of the original image.
    """
    height, width = image.shape[:2]
    if resized[0] >= height:
        return image, np.eye(3)
    small = cv2.resize(image, resized[::-1], interpolation=cv2.INTER_AREA)
    return small, np.diag([width / resized[1], height / resized[0], 1])


def warp_frame(
    image: np.ndarray,
    to_original: np.ndarray,
    ids: np.ndarray,
    affine: np.ndarray,
    resized: tuple[int, int],
    size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Makes one frame of a clip.

    Args:
        image: uint8 [h, w, 3], of `shrink`.
        to_original: [3, 3] map, of `shrink`.
        ids: int32 [H, W] in 0..65534, at the original size.
        affine, resized: of `frame_affines`.
        size: S.

    Returns:
        uint8 [S, S, 3] bilinear, and uint8 or uint16 [S, S] nearest; both 0 outside the image.
    """
    # Ids are shifted by one: 0 = outside the image, 1 = void. The smallest type is the fastest.
    marked = (ids + 1).astype(np.uint8 if ids.max(initial=0) < 255 else np.uint16)
    warped_ids = _warp(marked, affine, size, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT)
    # An image smaller than the square lies in its top left corner; the rest is padding, also after a rotation.
    warped_ids[resized[0] :] = 0
    warped_ids[:, resized[1] :] = 0
    inside = warped_ids > 0
    pixels = _warp(image, affine @ to_original, size, cv2.INTER_LINEAR, cv2.BORDER_REPLICATE)
    return cv2.bitwise_and(pixels, pixels, mask=inside.view(np.uint8)), warped_ids - inside


def _warp(pixels: np.ndarray, affine: np.ndarray, size: int, interpolation: int, border: int) -> np.ndarray:
    centred = affine.copy()  # OpenCV: (0, 0) is the centre of the first pixel; here its corner
    centred[:, 2] += affine[:, :2].sum(1) / 2 - 0.5
    return cv2.warpAffine(pixels, centred, (size, size), flags=interpolation, borderMode=border)
