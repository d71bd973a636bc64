"""The augmentations that make a clip of one image, drawn once per clip and applied to image and ids together.

In order: horizontal flip; rotation about one centre by angles that grow or fall over the clip; large-scale jitter;
a crop that shifts from frame to frame; zeros (void) on the right and at the bottom. Paper, section 4.1 and supplement.

What is drawn (`draw_augmentation`) does not depend on images, and where pixels go (`frame_affines`) is plain geometry,
so both can be tested by themselves. All steps are composed into one affine map per frame: ids are looked up once and
pixels interpolated once, after one shrinking of the image where it has to become smaller. The published code rotates
first and resizes the rotated image; up to that interpolation the result is the same, also in that what the rotation
turns out of the image's borders is lost. Pixels of an image that has to shrink are averaged by area here, by a
triangle filter there.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from entitysam.registry import ConfigError


@dataclass(frozen=True)
class AugmentationRanges:
    """What may be drawn.

    Attributes:
        flip_probability: of mirroring left and right.
        angle: largest rotation in degrees either way.
        centre: range of the rotation's centre, as a share of width and of height.
        scale: range of the jitter; at 1 the image just fits into the square.
        shift: largest shift of a later frame's crop, as a share of the square's side.
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
            raise ConfigError(f"scale {list(self.scale)} is no range of positive numbers")
        if self.angle < 0 or self.shift < 0:
            raise ConfigError(f"angle {self.angle} and shift {self.shift} must not be negative")


@dataclass(frozen=True)
class Augmentation:
    """What was drawn for a clip of T frames.

    Attributes:
        flip: mirror left and right.
        angles: [T] degrees counter-clockwise, growing or falling.
        centre: [2] (x, y) of the rotation, as shares of width and height.
        scale: of the jitter.
        crop: place of the crop in 0..1 of the room that there is, the same share in x and y.
        shifts: [T, 2] (x, y) in -1..1 of the largest shift; 0 on the first frame.
    """

    flip: bool
    angles: np.ndarray
    centre: np.ndarray
    scale: float
    crop: float
    shifts: np.ndarray


def draw_augmentation(rng: np.random.Generator, num_frames: int, ranges: AugmentationRanges) -> Augmentation:
    """Draws a clip's augmentation; a pure function of the generator's state."""
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
    """No change but fitting the image into the square."""
    return Augmentation(False, np.zeros(num_frames), np.full(2, 0.5), 1.0, 0.0, np.zeros((num_frames, 2)))


def resized_shape(height: int, width: int, image_size: int, scale: float) -> tuple[int, int]:
    """(height, width) of an image that fits into a box of `scale * image_size`, its aspect kept, at least 1 pixel."""
    factor = image_size * scale / max(height, width)
    return max(round(height * factor), 1), max(round(width * factor), 1)


def frame_affines(
    augmentation: Augmentation, height: int, width: int, image_size: int, max_shift: float
) -> tuple[np.ndarray, tuple[int, int]]:
    """Where the pixels of a height x width image go.

    Args:
        augmentation: what was drawn.
        height, width: of the image.
        image_size: S, side of the square.
        max_shift: `AugmentationRanges.shift`.

    Returns:
        float64 [T, 2, 3]: affine maps of (x, y) in the image to (x, y) in each square, in pixels, where pixel (0, 0)
        covers [0, 1) x [0, 1); and the resized image's (height, width), where the padding begins.
    """
    resized = resized_shape(height, width, image_size, augmentation.scale)
    mirror = np.array([[-1.0, 0, width], [0, 1, 0], [0, 0, 1]]) if augmentation.flip else np.eye(3)
    resize = np.diag([resized[1] / width, resized[0] / height, 1])
    offsets = crop_offsets(augmentation, resized, image_size, max_shift)
    affines = []
    for angle, (left, top) in zip(augmentation.angles, offsets):
        turn = np.eye(3)
        turn[:2] = cv2.getRotationMatrix2D((augmentation.centre * (width, height)).tolist(), float(angle), 1.0)
        crop = np.array([[1.0, 0, -left], [0, 1, -top], [0, 0, 1]])
        affines.append((crop @ resize @ turn @ mirror)[:2])
    return np.stack(affines), resized


def crop_offsets(augmentation: Augmentation, resized: tuple[int, int], image_size: int, max_shift: float) -> np.ndarray:
    """int64 [T, 2]: (x, y) of each frame's crop in the resized image, inside it as far as there is room."""
    room = np.maximum(np.array(resized[::-1]) - image_size, 0)
    reach = np.minimum(room, int(max_shift * image_size))
    start = np.round(augmentation.crop * room).astype(np.int64)
    return np.clip(start + np.trunc(augmentation.shifts * reach).astype(np.int64), 0, room)


def shrink(image: np.ndarray, resized: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The image at its resized size, averaged by area, and the [3, 3] map of its (x, y) to the original's; unchanged
    where it does not become smaller."""
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
        image: uint8 [h, w, 3], as `shrink` gives it; to_original: its map.
        ids: int32 [H, W] in 0..65534, at the original size.
        affine, resized: of `frame_affines`.
        size: S.

    Returns:
        uint8 [S, S, 3] bilinear, and uint8 or uint16 [S, S] nearest; both 0 outside the image.
    """
    # So that 0 means outside, and void inside is 1; in the smallest type that holds them, for speed.
    marked = (ids + 1).astype(np.uint8 if ids.max(initial=0) < 255 else np.uint16)
    warped_ids = _warp(marked, affine, size, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT)
    # Where the image is smaller than the square, the crop begins at the image's corner and ends with the image.
    warped_ids[resized[0] :] = 0
    warped_ids[:, resized[1] :] = 0
    inside = warped_ids > 0
    pixels = _warp(image, affine @ to_original, size, cv2.INTER_LINEAR, cv2.BORDER_REPLICATE)
    return cv2.bitwise_and(pixels, pixels, mask=inside.view(np.uint8)), warped_ids - inside


def _warp(pixels: np.ndarray, affine: np.ndarray, size: int, interpolation: int, border: int) -> np.ndarray:
    centred = affine.copy()  # OpenCV's coordinates are 0 at the middle of the first pixel, ours at its corner
    centred[:, 2] += affine[:, :2].sum(1) / 2 - 0.5
    return cv2.warpAffine(pixels, centred, (size, size), flags=interpolation, borderMode=border)
