"""Two views of an image for MASA: an instance in both views is a positive pair, all other pairs are negative (supplement J.2)."""

from collections.abc import Iterable

import cv2
import numpy as np
import torch

from entitysam.data.training.convex_hulls import as_outlines, clipped_box, warped
from entitysam.data.training.photometric import PHOTOMETRIC, hsv_jitter
from entitysam.data.training.samples import ImageSample, OutlineSample
from entitysam.data.training.transforms import shrink
from entitysam.data.training.view_geometry import View, ViewRanges, draw_view
from entitysam.registry import DATASETS, ConfigError
from entitysam.structures import BoxTargets, Clip

Random = np.random.Generator
PADDING = 114
MIN_SIDE = 1.0  # pixels; instances with a smaller box are not visible


@DATASETS.register("two_views")
class TwoViews:
    """Maps an image and its instances to a key view and a reference view with independent augmentations.

    With MixUp, a second image is blended with weight 0.5 into both views; its instances are added.

    Args:
        image_size: S.
        max_targets: maximum number of instances per image, drawn at random; None = all.
        hsv: probability of HSV jitter per view.
        photometric: probability of one of motion blur, noise, snow, fog and brightness (an ablation of the supplement).
        rotation, shear, translation, zoom, jitter, flip, mixup, mixup_zoom: see `ViewRanges`.

    Raises:
        ConfigError: a number out of its range.
    """

    def __init__(
        self,
        image_size: int = 1024,
        max_targets: int | None = None,
        hsv: float = 1.0,
        photometric: float = 0.0,
        rotation: float = 10.0,
        shear: float = 2.0,
        translation: float = 0.1,
        zoom: Iterable[float] = (0.5, 1.5),
        jitter: Iterable[float] = (0.1, 2.0),
        flip: float = 0.5,
        mixup: float = 1.0,
        mixup_zoom: Iterable[float] = (0.8, 1.6),
    ) -> None:
        if image_size < 1 or (max_targets is not None and max_targets < 1):
            raise ConfigError(f"image_size {image_size} and max_targets {max_targets} must be at least 1")
        if not (0 <= hsv <= 1 and 0 <= photometric <= 1):
            raise ConfigError(f"hsv {hsv} and photometric {photometric} must be in 0..1")
        self.image_size, self.max_targets = image_size, max_targets
        self.hsv, self.photometric = hsv, photometric
        self.ranges = ViewRanges(
            *(rotation, shear, translation, _pair("zoom", zoom), _pair("jitter", jitter)),
            *(flip, mixup, _pair("mixup_zoom", mixup_zoom)),
        )
        self.partners = 1 if mixup > 0 else 0

    def __call__(
        self, sample: ImageSample | OutlineSample, rng: Random, partner: ImageSample | OutlineSample | None = None
    ) -> Clip:
        """Returns a clip of the two views; all randomness comes from `rng`.

        Raises:
            DataError: the sample is a video.
        """
        first = self._thinned(as_outlines(sample), rng)
        second = self._thinned(as_outlines(partner), rng) if partner is not None else None
        shape, partner_shape = first.image.shape[:2], second.image.shape[:2] if second is not None else None
        views = [draw_view(rng, shape, partner_shape, self.image_size, self.ranges) for _ in range(2)]
        frames = np.stack([self._pixels(first, second, view, rng).transpose(2, 0, 1) for view in views])  # [2, 3, S, S]
        boxes = np.stack([view_boxes(first, second, view) for view in views], axis=1)  # [N, 2, 4]
        visible = ((boxes[..., 2:] - boxes[..., :2]) > MIN_SIDE).all(-1)  # [N, 2]
        boxes[~visible] = 0
        kept = visible.any(1)
        targets = BoxTargets(torch.from_numpy(boxes[kept]), torch.from_numpy(visible[kept]))
        return Clip(torch.from_numpy(frames), targets, first.source)

    def _thinned(self, sample: OutlineSample, rng: Random) -> OutlineSample:
        if self.max_targets is None or len(sample.outlines) <= self.max_targets:
            return sample
        chosen = np.sort(rng.choice(len(sample.outlines), self.max_targets, replace=False))
        return OutlineSample(sample.image, [sample.outlines[i] for i in chosen], sample.source)

    def _pixels(self, first: OutlineSample, second: OutlineSample | None, view: View, rng: Random) -> np.ndarray:
        """uint8 [S, S, 3] of a view."""
        pixels = warp_image(first.image, view.affine, self.image_size)
        if view.partner is not None and second is not None:
            over = warp_image(second.image, view.partner, self.image_size)
            pixels = cv2.addWeighted(pixels, 0.5, over, 0.5, 0)
        if rng.random() < self.hsv:
            pixels = hsv_jitter(pixels, rng)
        if rng.random() < self.photometric:
            pixels = PHOTOMETRIC[int(rng.integers(len(PHOTOMETRIC)))](pixels, rng)
        x1, y1, x2, y2 = view.window.round().astype(int)
        framed = np.full_like(pixels, PADDING)
        framed[y1:y2, x1:x2] = pixels[y1:y2, x1:x2]
        return framed


def view_boxes(first: OutlineSample, second: OutlineSample | None, view: View) -> np.ndarray:
    """float32 [N, 4] boxes of the instances of both images in a view; zeros for instances outside the view.

    Rows are the same instances in both views. Without MixUp the rows of the second image are zeros.
    """
    found = [clipped_box(warped(outline, view.affine), view.window) for outline in first.outlines]
    for outline in second.outlines if second is not None else []:
        if view.partner is None or view.partner_window is None:
            found.append(np.zeros(4, np.float32))
        else:
            found.append(clipped_box(warped(outline, view.partner), view.partner_window))
    return np.stack(found) if found else np.zeros((0, 4), np.float32)


def warp_image(image: np.ndarray, affine: np.ndarray, size: int) -> np.ndarray:
    """Warps an image [H, W, 3] into the square [S, S, 3], bilinear, after area downsampling if it becomes smaller."""
    scale = float(np.sqrt(abs(np.linalg.det(affine[:, :2]))))
    height, width = image.shape[:2]
    smaller = (max(round(height * scale), 1), max(round(width * scale), 1))
    image, to_original = shrink(image, smaller) if scale < 1 else (image, np.eye(3))
    matrix = affine @ to_original
    matrix[:, 2] += matrix[:, :2].sum(1) / 2 - 0.5  # OpenCV: (0, 0) is the centre of the first pixel
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderValue=(PADDING,) * 3)


def _pair(name: str, values: Iterable[float]) -> tuple[float, float]:
    pair = tuple(values)
    if len(pair) != 2:
        raise ConfigError(f"{name} {list(pair)} must be [low, high]")
    return pair
