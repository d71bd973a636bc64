"""The picture of an entity that a classifier is asked about: the supplement's five visual prompts (Figure 1, Table 2).

| name | paper | picture |
| --- | --- | --- |
| `image_box` | (a) | the frame, the entity in a red box |
| `image_box_mask` | (b) | ... and its mask tinted |
| `crop_box` | (c) | the region around the entity, the entity in a red box |
| `crop_box_mask` | (d) | ... and its mask tinted |
| `masked_crop` | (e) | the region, everything but the entity black, in a red box; the best by far |
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
    """Draws entities for a classifier.

    Args:
        kind: one of `KINDS`.
        margin: of a crop around the entity's box, as a share of the box's longer side.
        min_side: pictures whose longer side is shorter are enlarged to it, in pixels.
        max_side: pictures whose longer side is longer are reduced to it.
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
        """The picture of one entity.

        Args:
            frame: uint8 [H, W, 3] RGB.
            mask: bool [H, W], the entity's pixels.

        Returns:
            uint8 [h, w, 3] RGB.

        Raises:
            ValueError: the mask is empty, or its size is not that of the frame.
        """
        if frame.shape[:2] != mask.shape:
            raise ValueError(f"mask is {_size(mask)}, its frame {_size(frame)}")
        if not mask.any():
            raise ValueError("an entity without pixels cannot be drawn")
        x, y, width, height = mask_to_box(mask)
        left, top, right, bottom = self._view((x, y, x + width, y + height), mask.shape)
        picture, region = _cut(frame, (left, top, right, bottom)), _cut(mask, (left, top, right, bottom))
        size = self._size_of(right - left, bottom - top)
        scale_x, scale_y = size[0] / picture.shape[1], size[1] / picture.shape[0]
        if size != (picture.shape[1], picture.shape[0]):
            picture, region = _resize(picture, region, size)
        if self.kind == "masked_crop":
            picture = picture * region[..., None]
        elif self.kind.endswith("_mask"):
            tinted = cv2.addWeighted(picture, 1 - TINT, np.full_like(picture, RED), TINT, 0)
            picture = np.where(region[..., None], tinted, picture)
        corners = (
            (x - left) * scale_x,
            (y - top) * scale_y,
            (x - left + width) * scale_x,
            (y - top + height) * scale_y,
        )
        return _draw_box(np.ascontiguousarray(picture), corners)

    def encode(self, frame: np.ndarray, mask: np.ndarray) -> bytes:
        """The picture as JPEG without colour subsampling, which would smear the red line; see `draw`."""
        file = io.BytesIO()
        picture = Image.fromarray(self.draw(frame, mask))
        picture.save(file, format="JPEG", quality=self.jpeg_quality, subsampling=0)
        return file.getvalue()

    def _view(self, box: tuple[int, int, int, int], shape: tuple[int, ...]) -> tuple[int, int, int, int]:
        """Left, top, right, bottom of the picture in the frame; a masked crop may reach beyond it, into black."""
        height, width = shape
        if self.kind.startswith("image"):
            return 0, 0, width, height
        left, top, right, bottom = box
        margin = round(self.margin * max(right - left, bottom - top))
        view = left - margin, top - margin, right + margin, bottom + margin
        if self.kind == "masked_crop":
            return view
        return max(view[0], 0), max(view[1], 0), min(view[2], width), min(view[3], height)

    def _size_of(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of the picture for a view of this size."""
        longer = max(width, height)
        scale = min(max(longer, self.min_side), self.max_side) / longer
        return max(1, round(width * scale)), max(1, round(height * scale))


def line_width(height: int, width: int) -> int:
    """Width in pixels of the red line in a picture of this size."""
    return max(2, round(max(height, width) / 160))


def _cut(pixels: np.ndarray, view: tuple[int, int, int, int]) -> np.ndarray:
    """The part of an image inside a view, 0 where the view lies outside."""
    left, top, right, bottom = view
    height, width = pixels.shape[:2]
    inside = pixels[max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
    around = [(max(-top, 0), max(bottom - height, 0)), (max(-left, 0), max(right - width, 0))]
    return np.pad(inside, around + [(0, 0)] * (pixels.ndim - 2))


def _resize(picture: np.ndarray, region: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Picture and mask at another size (width, height); outlines of enlarged masks are smooth."""
    if size[0] > picture.shape[1]:
        larger = cv2.resize(region.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
        return cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC), larger >= 0.5
    smaller = cv2.resize(region.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA), smaller.astype(bool)


def _draw_box(picture: np.ndarray, corners: tuple[float, float, float, float]) -> np.ndarray:
    """A red line around left, top, right, bottom: outside of it as far as the picture reaches."""
    height, width = picture.shape[:2]
    line = line_width(height, width)
    left, top, right, bottom = (round(value) for value in corners)
    left, top = max(left - line, 0), max(top - line, 0)
    right, bottom = min(right + line, width), min(bottom + line, height)
    picture[top:bottom, left : left + line] = RED
    picture[top:bottom, right - line : right] = RED
    picture[top : top + line, left:right] = RED
    picture[bottom - line : bottom, left:right] = RED
    return picture


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
