"""Draws the crop of an entity for a classifier: the five visual prompts of the supplement (Figure 1, Table 2).

| kind | paper | image |
| --- | --- | --- |
| `image_box` | (a) | the whole frame with a red box around the entity |
| `image_box_mask` | (b) | as (a), the mask tinted red |
| `crop_box` | (c) | a crop around the entity with a red box |
| `crop_box_mask` | (d) | as (c), the mask tinted red |
| `masked_crop` | (e) | as (c), all other pixels black; the most accurate in Table 2 |
"""

import io

import cv2
import numpy as np
from PIL import Image

from entitysam.ops import mask_to_box
from entitysam.registry import ConfigError

KINDS = ("image_box", "image_box_mask", "crop_box", "crop_box_mask", "masked_crop")
RED = (255, 0, 0)
TINT = 0.4  # opacity of the tinted mask


class VisualPrompt:
    """Draws crops of entities.

    Args:
        kind: one of `KINDS`.
        margin: margin of a crop around the entity's box, as a share of the box's longer side.
        min_side: lower bound of the image's longer side in pixels; smaller images are enlarged.
        max_side: upper bound; larger images are reduced.
        jpeg_quality: 1..100.

    Raises:
        ConfigError: unknown kind, or a number out of its range.
    """

    def __init__(
        self,
        kind: str = "masked_crop",
        margin: float = 0.1,
        min_side: int = 224,
        max_side: int = 512,
        jpeg_quality: int = 90,
    ) -> None:
        if kind not in KINDS:
            raise ConfigError(f"visual_prompt.kind: one of {', '.join(KINDS)}, not '{kind}'")
        if margin < 0 or not 1 <= min_side <= max_side or not 1 <= jpeg_quality <= 100:
            raise ConfigError(
                "visual_prompt: needs margin >= 0, 1 <= min_side <= max_side and jpeg_quality in 1..100, "
                f"not {margin}, {min_side}, {max_side} and {jpeg_quality}"
            )
        self.kind = kind
        self.margin = margin
        self.min_side = min_side
        self.max_side = max_side
        self.jpeg_quality = jpeg_quality

    def draw(self, frame: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The image of one entity.

        Args:
            frame: uint8 [H, W, 3] RGB.
            mask: bool [H, W].

        Returns:
            uint8 [h, w, 3] RGB.

        Raises:
            ValueError: the mask is empty, or differs from the frame in size.
        """
        if frame.shape[:2] != mask.shape:
            raise ValueError(f"the mask is {_size(mask)}, its frame {_size(frame)}")
        if not mask.any():
            raise ValueError("the mask of the entity is empty")
        x, y, width, height = mask_to_box(mask)
        left, top, right, bottom = self._window((x, y, x + width, y + height), mask.shape)
        window = left, top, right, bottom
        image, region = _crop(frame, window), _crop(mask, window)
        size = self._size_of(right - left, bottom - top)
        scale_x, scale_y = size[0] / image.shape[1], size[1] / image.shape[0]
        if size != (image.shape[1], image.shape[0]):
            image, region = _resize(image, region, size)
        if self.kind == "masked_crop":
            image = image * region[..., None]
        elif self.kind.endswith("_mask"):
            tinted = cv2.addWeighted(image, 1 - TINT, np.full_like(image, RED), TINT, 0)
            image = np.where(region[..., None], tinted, image)
        corners = (
            (x - left) * scale_x,
            (y - top) * scale_y,
            (x - left + width) * scale_x,
            (y - top + height) * scale_y,
        )
        return _draw_box(np.ascontiguousarray(image), corners)

    def encode(self, frame: np.ndarray, mask: np.ndarray) -> bytes:
        """The image as JPEG, without chroma subsampling, which would blur the red line; see `draw`."""
        file = io.BytesIO()
        image = Image.fromarray(self.draw(frame, mask))
        image.save(file, format="JPEG", quality=self.jpeg_quality, subsampling=0)
        return file.getvalue()

    def _window(self, box: tuple[int, int, int, int], shape: tuple[int, ...]) -> tuple[int, int, int, int]:
        """Left, top, right, bottom of the image in the frame, in pixels; a masked crop may exceed the frame (black there)."""
        height, width = shape
        if self.kind.startswith("image"):
            return 0, 0, width, height
        left, top, right, bottom = box
        margin = round(self.margin * max(right - left, bottom - top))
        window = left - margin, top - margin, right + margin, bottom + margin
        if self.kind == "masked_crop":
            return window
        return max(window[0], 0), max(window[1], 0), min(window[2], width), min(window[3], height)

    def _size_of(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of the image for a window of this size."""
        longer = max(width, height)
        scale = min(max(longer, self.min_side), self.max_side) / longer
        return max(1, round(width * scale)), max(1, round(height * scale))


def line_width(height: int, width: int) -> int:
    """Width in pixels of the red line in an image of this size."""
    return max(2, round(max(height, width) / 160))


def _crop(pixels: np.ndarray, window: tuple[int, int, int, int]) -> np.ndarray:
    """The part of an image inside a window; 0 where the window exceeds the image."""
    left, top, right, bottom = window
    height, width = pixels.shape[:2]
    inside = pixels[max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
    around = [(max(-top, 0), max(bottom - height, 0)), (max(-left, 0), max(right - width, 0))]
    return np.pad(inside, around + [(0, 0)] * (pixels.ndim - 2))


def _resize(image: np.ndarray, region: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Image and mask at another size (width, height); enlarged masks get smooth outlines."""
    if size[0] > image.shape[1]:
        larger = cv2.resize(region.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
        return cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), larger >= 0.5
    smaller = cv2.resize(region.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), smaller.astype(bool)


def _draw_box(image: np.ndarray, corners: tuple[float, float, float, float]) -> np.ndarray:
    """Draws a red line outside of the box left, top, right, bottom, clipped to the image."""
    height, width = image.shape[:2]
    line = line_width(height, width)
    left, top, right, bottom = (round(value) for value in corners)
    left, top = max(left - line, 0), max(top - line, 0)
    right, bottom = min(right + line, width), min(bottom + line, height)
    image[top:bottom, left : left + line] = RED
    image[top:bottom, right - line : right] = RED
    image[top : top + line, left:right] = RED
    image[bottom - line : bottom, left:right] = RED
    return image


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
