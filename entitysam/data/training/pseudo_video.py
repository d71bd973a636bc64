"""Mappers from samples to training clips: pseudo-videos of one image, and clips of videos."""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
import torch

from entitysam.data.images import DataError
from entitysam.data.training.samples import ImageSample, VideoSample, compact_ids
from entitysam.data.training.transforms import (
    Augmentation,
    AugmentationRanges,
    draw_augmentation,
    frame_affines,
    shrink,
    warp_frame,
)
from entitysam.registry import DATASETS, ConfigError
from entitysam.structures import Clip, TargetMaps

Random = np.random.Generator


class _Mapper:
    """Shared by both mappers: geometry, frames to tensors, ids to targets."""

    def __init__(self, image_size: int, max_targets: int | None, ranges: AugmentationRanges) -> None:
        if image_size < 1 or (max_targets is not None and max_targets < 1):
            raise ConfigError(f"image_size {image_size} and max_targets {max_targets} must be at least 1")
        self.image_size, self.max_targets, self.ranges = image_size, max_targets, ranges

    def _clip(
        self,
        images: Sequence[np.ndarray],
        id_maps: Sequence[np.ndarray],
        augmentation: Augmentation,
        sample: ImageSample | VideoSample,
        rng: Random,
    ) -> Clip:
        height, width = id_maps[0].shape
        affines, resized = frame_affines(augmentation, height, width, self.image_size, self.ranges.shift)
        distinct = {id(image): image for image in images}  # an image that is used for all frames is downsampled once
        shrunk = {key: shrink(image, resized) for key, image in distinct.items()}
        warped = [
            warp_frame(*shrunk[id(image)], ids, affine, resized, self.image_size)
            for image, ids, affine in zip(images, id_maps, affines)
        ]
        frames = np.empty((len(warped), 3, self.image_size, self.image_size), np.uint8)
        for frame, (pixels, _) in zip(frames, warped):
            frame[:] = pixels.transpose(2, 0, 1)
        ids = np.stack([one for _, one in warped])
        return Clip(torch.from_numpy(frames), self._targets(ids, sample.categories, rng), sample.source)

    def _targets(self, ids: np.ndarray, categories: dict[int, int], rng: Random) -> TargetMaps:
        """Targets of id maps uint [T, S, S]: entities seen on some frame, at most `max_targets`, drawn at random."""
        numbers = max(categories, default=0) + 1
        counts = cv2.calcHist([ids.reshape(-1, self.image_size)], [0], None, [numbers], [0, numbers])
        visible = np.flatnonzero(counts)
        visible = visible[visible > 0]
        if self.max_targets is not None and len(visible) > self.max_targets:
            visible = np.sort(rng.choice(visible, self.max_targets, replace=False))
        maps = compact_ids(ids, visible).astype(np.uint8 if len(visible) < 256 else np.int32, copy=False)
        return TargetMaps(
            torch.from_numpy(maps), torch.tensor([categories[int(n)] for n in visible], dtype=torch.int64)
        )


@DATASETS.register("pseudo_video")
class PseudoVideo(_Mapper):
    """Maps an image and its ids to a pseudo-video of T frames.

    Args:
        num_frames: T.
        image_size: S.
        max_targets: maximum number of entities, drawn at random; None = all (COCO needs no limit).
        flip_probability, angle, centre, scale, shift: see `AugmentationRanges`.

    Raises:
        ConfigError: a number out of its range.
    """

    def __init__(
        self,
        num_frames: int = 8,
        image_size: int = 1024,
        max_targets: int | None = None,
        flip_probability: float = 0.5,
        angle: float = 15.0,
        centre: Iterable[float] = (0.4, 0.6),
        scale: Iterable[float] = (0.25, 4.0),
        shift: float = 0.1,
    ) -> None:
        super().__init__(image_size, max_targets, _ranges(flip_probability, angle, centre, scale, shift))
        if num_frames < 1:
            raise ConfigError(f"num_frames {num_frames} must be at least 1")
        self.num_frames = num_frames

    def __call__(self, sample: ImageSample, rng: Random) -> Clip:
        """Returns the clip; all randomness comes from `rng`.

        Raises:
            DataError: more than 65534 entities, or the sample is a video.
        """
        if not isinstance(sample, ImageSample):
            raise DataError(f"{sample.source}: mapper 'pseudo_video' takes images; for videos use 'video_clip'")
        _check_ids(sample)
        augmentation = draw_augmentation(rng, self.num_frames, self.ranges)
        images, id_maps = [sample.image] * self.num_frames, [sample.ids] * self.num_frames
        return self._clip(images, id_maps, augmentation, sample, rng)


@DATASETS.register("video_clip")
class VideoClip(_Mapper):
    """Maps a video sample to a clip with the same flip, scale and crop on all frames, reversed with probability 0.5.

    Arguments as for `PseudoVideo`, but by default no rotation and no shift is added to the motion of the video, and:
        num_frames: length of a random run of consecutive frames; None = all frames of the sample.
        reverse_probability: of reversing the frame order.
    """

    def __init__(
        self,
        num_frames: int | None = None,
        image_size: int = 1024,
        max_targets: int | None = None,
        flip_probability: float = 0.5,
        angle: float = 0.0,
        centre: Iterable[float] = (0.4, 0.6),
        scale: Iterable[float] = (0.5, 2.0),
        shift: float = 0.0,
        reverse_probability: float = 0.5,
    ) -> None:
        super().__init__(image_size, max_targets, _ranges(flip_probability, angle, centre, scale, shift))
        self.num_frames, self.reverse_probability = num_frames, reverse_probability

    def __call__(self, sample: VideoSample, rng: Random) -> Clip:
        """Returns the clip; all randomness comes from `rng`.

        Raises:
            DataError: as `PseudoVideo`; the sample is an image or has too few frames.
        """
        if not isinstance(sample, VideoSample):
            raise DataError(f"{sample.source}: mapper 'video_clip' takes videos; for images use 'pseudo_video'")
        _check_ids(sample)
        available = len(sample.frames)
        wanted = available if self.num_frames is None else self.num_frames
        if not 1 <= wanted <= available:
            raise DataError(f"{sample.source}: num_frames {wanted}, but the sample has {available} frames")
        augmentation = draw_augmentation(rng, wanted, self.ranges)
        start = int(rng.integers(available - wanted + 1))
        order = list(range(start, start + wanted))
        if rng.random() < self.reverse_probability:
            order.reverse()
        return self._clip([sample.frames[t] for t in order], [sample.ids[t] for t in order], augmentation, sample, rng)


def _ranges(
    flip_probability: float, angle: float, centre: Iterable[float], scale: Iterable[float], shift: float
) -> AugmentationRanges:
    centre_pair, scale_pair = tuple(centre), tuple(scale)
    if len(centre_pair) != 2 or len(scale_pair) != 2:
        raise ConfigError(f"centre {list(centre_pair)} and scale {list(scale_pair)} must be [low, high]")
    return AugmentationRanges(flip_probability, angle, centre_pair, scale_pair, shift)


def _check_ids(sample: ImageSample | VideoSample) -> None:
    if sample.ids.max(initial=0) > 65534:
        raise DataError(f"{sample.source}: id {sample.ids.max()} is too large; number the entities 1..n")
