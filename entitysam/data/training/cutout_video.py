"""Mapper: a photo under a moving camera, with cut-outs of other photos moving over it, becomes a clip with exact ids.

Copy-paste (Ghiasi et al., 2021) where a clip has one frame; a pseudo-video with motion, occlusion, exit and return where it
has several. Frames are stretched to the square, as they are at inference.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from entitysam.data.images import DataError
from entitysam.data.training.colour import colour_jitter
from entitysam.data.training.samples import ImageSample, VideoSample
from entitysam.registry import DATASETS, ConfigError
from entitysam.structures import Clip, TargetMaps

Random = np.random.Generator
CUTOUT_AREA = (0.01, 0.4)  # of the photo, for an entity to be cut out
CUTOUT_TRIES = 4


@dataclass(frozen=True)
class Cutout:
    """One entity of a photo: uint8 [h, w, 4] RGB and alpha 0 or 255, and its category."""

    pixels: np.ndarray
    category: int


@DATASETS.register("cutout_video")
class CutoutVideo:
    """A photo, or a piece of video, and other photos -> T frames of one clip.

    Args:
        num_frames: T. A piece of video has to be as long; one frame of it is drawn where T is 1.
        image_size: S.
        cutouts: at most so many cut-outs are pasted; the number is drawn.
        scale: range of the zoom; above 1 part of the photo is seen, below 1 it is padded (void).
        aspect: largest change of the aspect ratio either way, as a factor.
        angle: largest rotation of the camera in degrees.
        camera: motion of the camera per frame, as a share of the image's side (standard deviation).
        motion: the same of the cut-outs.
        colour: strength of the colour changes in 0..1.
        min_area: entities with fewer pixels in the whole clip are void.
        max_targets: keep at most this many entities.

    Raises:
        ConfigError: a number out of its range.
    """

    def __init__(
        self,
        num_frames: int = 1,
        image_size: int = 256,
        cutouts: int = 2,
        scale: Iterable[float] = (0.8, 2.0),
        aspect: float = 1.4,
        angle: float = 10.0,
        camera: float = 0.02,
        motion: float = 0.05,
        colour: float = 0.5,
        min_area: int = 12,
        max_targets: int | None = None,
    ) -> None:
        low, high = tuple(scale)
        if num_frames < 1 or image_size < 1 or cutouts < 0:
            raise ConfigError(
                f"num_frames {num_frames} and image_size {image_size} must be positive, cutouts at least 0"
            )
        if not 0 < low <= high or aspect < 1:
            raise ConfigError(f"scale [{low}, {high}] must be a range of positive numbers, aspect {aspect} at least 1")
        self.num_frames, self.image_size, self.partners = num_frames, image_size, cutouts
        self.scale, self.aspect, self.angle = (low, high), aspect, angle
        self.camera, self.motion, self.colour = camera, motion, colour
        self.min_area, self.max_targets = min_area, max_targets

    def __call__(self, sample: ImageSample | VideoSample, rng: Random, *others: ImageSample | VideoSample) -> Clip:
        """Makes the clip; a pure function of the samples and the generator's state.

        Raises:
            DataError: more than 60,000 entities, or a piece of too few frames.
        """
        if sample.ids.max(initial=0) > 60_000:
            raise DataError(f"{sample.source}: id {sample.ids.max()} is too large; number the entities 1..n")
        images, id_maps = self._frames(sample, rng)
        categories = dict(sample.categories)
        frames, ids = self._camera(images, id_maps, rng)
        wanted = int(rng.integers(self.partners + 1))
        for other in others[:wanted]:
            cutout = self._cut_out(other, rng)
            if cutout is not None:
                number = max(categories, default=0) + 1
                categories[number] = cutout.category
                self._paste(frames, ids, cutout, number, rng)
        targets = self._targets(ids, categories, rng)
        return Clip(torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2))), targets, sample.source)

    def _frames(self, sample: ImageSample | VideoSample, rng: Random) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """T images and id maps, their colours changed alike."""
        if isinstance(sample, ImageSample):
            image = colour_jitter(sample.image, self.colour, rng)
            return [image] * self.num_frames, [sample.ids] * self.num_frames
        available = len(sample.frames)
        if available < self.num_frames:
            raise DataError(f"{sample.source}: num_frames {self.num_frames} of a piece of {available} frames")
        start = int(rng.integers(available - self.num_frames + 1))
        order = list(range(start, start + self.num_frames))[:: 1 if rng.random() < 0.5 else -1]
        seed = rng.integers(2**32)
        images = [colour_jitter(sample.frames[t], self.colour, np.random.default_rng(seed)) for t in order]
        return images, [sample.ids[t] for t in order]

    def _camera(
        self, images: list[np.ndarray], id_maps: list[np.ndarray], rng: Random
    ) -> tuple[np.ndarray, np.ndarray]:
        """Frames uint8 [T, S, S, 3] and ids uint16 [T, S, S] seen by a moving camera; 0 outside the image."""
        size, count = self.image_size, len(images)
        zoom, stretch = rng.uniform(*self.scale), np.exp(rng.uniform(-1, 1) * np.log(self.aspect) / 2)
        span = np.array([stretch, 1 / stretch]) / zoom  # of the view, as a share of the image's width and height
        room = np.abs(1 - span)
        centre = 0.5 + (rng.random(2) - 0.5) * room
        flip, angle = rng.random() < 0.5, rng.uniform(-self.angle, self.angle)
        speed, turn = rng.normal(0, self.camera, 2), rng.normal(0, self.angle / 8)
        growth = np.exp(rng.normal(0, self.camera))
        frames = np.empty((count, size, size, 3), np.uint8)
        ids = np.empty((count, size, size), np.uint16)
        small: dict[int, np.ndarray] = {}
        for t, (image, id_map) in enumerate(zip(images, id_maps)):
            height, width = id_map.shape
            per_pixel = size / (np.array([width, height]) * span)
            view = _view(per_pixel * growth**t, (centre + t * speed) * (width, height), angle + t * turn, size, flip)
            factor = min(1.0, float(per_pixel.max()) * 1.2)
            key = id(image)
            if key not in small:
                small[key] = (
                    image
                    if factor > 0.8
                    else cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
                )
            back = np.diag([width / small[key].shape[1], height / small[key].shape[0], 1])
            frames[t] = warp(small[key], view @ back, size, cv2.INTER_LINEAR)
            ids[t] = warp(id_map.astype(np.uint16), view, size, cv2.INTER_NEAREST)
        return frames, ids

    def _cut_out(self, sample: ImageSample | VideoSample, rng: Random) -> Cutout | None:
        """A compact entity of a photo, or None where a few tries find none."""
        image, ids = (
            (sample.image, sample.ids) if isinstance(sample, ImageSample) else (sample.frames[0], sample.ids[0])
        )
        image = colour_jitter(image, self.colour, rng)
        for number in rng.permutation(list(sample.categories))[:CUTOUT_TRIES]:
            mask = ids == number
            if not CUTOUT_AREA[0] <= mask.mean() <= CUTOUT_AREA[1]:
                continue
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
            touches = (
                (rows[0] == 0) + (columns[0] == 0) + (rows[-1] == len(mask) - 1) + (columns[-1] == mask.shape[1] - 1)
            )
            if touches > 1 or mask[box].mean() < 0.3:  # a piece of background, or thin and scattered
                continue
            alpha = mask[box].astype(np.uint8) * 255
            return Cutout(np.dstack([image[box], alpha]), sample.categories[int(number)])
        return None

    def _paste(self, frames: np.ndarray, ids: np.ndarray, cutout: Cutout, number: int, rng: Random) -> None:
        """Moves a cut-out through the clip, in place."""
        size, (height, width) = self.image_size, cutout.pixels.shape[:2]
        side = rng.uniform(0.12, 0.6) * size
        per_pixel = side / max(height, width) * np.exp(rng.uniform(-0.2, 0.2, 2))
        centre = rng.uniform(0.0, 1.0, 2) * size
        speed = rng.normal(0, self.motion, 2) * size
        back_at = rng.integers(1, 2 * len(frames) + 1)  # where it turns round, if it does
        flip, angle, turn = rng.random() < 0.5, rng.uniform(-15, 15), rng.normal(0, 3)
        growth = np.exp(rng.normal(0, 0.02))
        pixels = cutout.pixels
        factor = float(per_pixel.max()) * 1.2
        if factor < 0.8:
            pixels = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        back = np.diag([width / pixels.shape[1], height / pixels.shape[0], 1])
        middle = np.array([width, height]) / 2
        for t, (frame, id_map) in enumerate(zip(frames, ids)):
            steps = t if t <= back_at else 2 * back_at - t
            view = _view(per_pixel * growth**t, middle, angle + t * turn, size, flip)
            view[:2, 2] += centre + steps * speed - size / 2
            patch = warp(pixels, view @ back, size, cv2.INTER_LINEAR)
            alpha = patch[..., 3:].astype(np.float32) / 255
            frame[:] = (frame * (1 - alpha) + patch[..., :3] * alpha).astype(np.uint8)
            id_map[alpha[..., 0] > 0.5] = number

    def _targets(self, ids: np.ndarray, categories: dict[int, int], rng: Random) -> TargetMaps:
        counts = np.bincount(ids.ravel(), minlength=max(categories, default=0) + 1)
        visible = np.array([n for n in sorted(categories) if counts[n] >= self.min_area], np.int64)
        if self.max_targets is not None and len(visible) > self.max_targets:
            visible = np.sort(rng.choice(visible, self.max_targets, replace=False))
        row = np.zeros(int(ids.max(initial=0)) + 1, np.int32 if len(visible) > 255 else np.uint8)
        row[visible] = np.arange(1, len(visible) + 1)
        kept = torch.tensor([categories[int(n)] for n in visible], dtype=torch.int64)
        return TargetMaps(torch.from_numpy(row[ids]), kept)


def _view(per_pixel: np.ndarray, centre: np.ndarray, angle: float, size: int, flip: bool) -> np.ndarray:
    """[3, 3] map of (x, y) in an image to the square: `centre` to the middle, scaled, turned, perhaps mirrored."""
    to_centre = np.array([[1.0, 0, -centre[0]], [0, 1, -centre[1]], [0, 0, 1]])
    scale = np.diag([per_pixel[0] * (-1 if flip else 1), per_pixel[1], 1])
    cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    turn = np.array([[cosine, sine, size / 2], [-sine, cosine, size / 2], [0, 0, 1]])
    return turn @ scale @ to_centre


def warp(pixels: np.ndarray, view: np.ndarray, size: int, interpolation: int) -> np.ndarray:
    """An image by a [3, 3] map of its (x, y) to a square, 0 outside; pixel (0, 0) covers [0, 1) x [0, 1)."""
    centred = view[:2].copy()  # OpenCV's coordinates are 0 at the middle of the first pixel
    centred[:, 2] += view[:2, :2].sum(1) / 2 - 0.5
    return cv2.warpAffine(pixels, centred, (size, size), flags=interpolation, borderMode=cv2.BORDER_CONSTANT)
