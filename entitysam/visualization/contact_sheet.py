"""The contact sheet: evenly spaced frames of a video, each original above its overlay."""

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

BACKGROUND = (24, 24, 27)
TEXT = (228, 228, 231)
MARGIN = 8
CAPTION = 26
GAP = 3  # between a frame and its overlay


class ContactSheet:
    """Collects frames of a video of unknown length and draws the sheet at the end.

    Keeps every k-th frame as a thumbnail and doubles k whenever there are too many, so that memory is bounded.

    Args:
        count: number of frames on the sheet (fewer for shorter videos).
        columns: frames side by side.
        width: of a thumbnail in pixels; smaller frames are not enlarged.
    """

    def __init__(self, count: int = 8, columns: int = 4, width: int = 400) -> None:
        self._count = count
        self._columns = columns
        self._width = width
        self._step = 1
        self._seen = 0
        self._kept: list[tuple[str, Image.Image, Image.Image]] = []

    def add(self, name: str, frame: np.ndarray, overlay: np.ndarray) -> None:
        """Adds one frame.

        Args:
            name: written above it.
            frame: uint8 [H, W, 3] RGB.
            overlay: uint8 [H', W', 3] RGB, the frame with its entities drawn; another size is scaled to that of the frame.
        """
        if self._seen % self._step == 0:
            thumbnail = self._thumbnail(frame)
            self._kept.append((name, thumbnail, self._thumbnail(overlay).resize(thumbnail.size)))
            if len(self._kept) > 4 * self._count:
                self._kept = self._kept[::2]
                self._step *= 2
        self._seen += 1

    def chosen(self) -> list[str]:
        """Names of the frames on the sheet, in order."""
        return [name for name, _, _ in self._choose()]

    def draw(self, title: str) -> Image.Image:
        """Draws the sheet with a title line.

        Raises:
            ValueError: no frame was added.
        """
        chosen = self._choose()
        if not chosen:
            raise ValueError("a contact sheet needs at least one frame")
        width, height = chosen[0][1].size
        columns = min(self._columns, len(chosen))
        rows = -(-len(chosen) // columns)
        cell_width, cell_height = width + MARGIN, 2 * height + GAP + CAPTION + MARGIN
        header = 2 * MARGIN + CAPTION
        sheet = Image.new("RGB", (columns * cell_width + MARGIN, header + rows * cell_height), BACKGROUND)
        canvas = ImageDraw.Draw(sheet)
        draw_text(canvas, (MARGIN, MARGIN), title, 18, sheet.width - 2 * MARGIN)
        for index, (name, frame, overlay) in enumerate(chosen):
            row, column = divmod(index, columns)
            left, top = MARGIN + column * cell_width, header + row * cell_height
            draw_text(canvas, (left, top), name, 15, width)
            sheet.paste(frame, (left, top + CAPTION))
            sheet.paste(overlay, (left, top + CAPTION + height + GAP))
        return sheet

    def _choose(self) -> list[tuple[str, Image.Image, Image.Image]]:
        indices = np.linspace(0, len(self._kept) - 1, min(self._count, len(self._kept)))
        return [self._kept[index] for index in indices.round().astype(int)]

    def _thumbnail(self, pixels: np.ndarray) -> Image.Image:
        height, width = pixels.shape[:2]
        if width > self._width:
            size = (self._width, max(1, round(height * self._width / width)))
            pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        return Image.fromarray(pixels)


def draw_text(canvas: ImageDraw.ImageDraw, position: tuple[int, int], text: str, size: int, width: int) -> None:
    """Draws one line of text, cut to a width in pixels, with its upper left corner at `position` (x, y)."""
    font = ImageFont.load_default(size)
    text = " ".join(text.split())  # a file name may have line breaks, which Pillow does not measure
    while text and canvas.textlength(text, font) > width:
        text = text[:-2] + "…" if len(text) > 2 else ""
    canvas.text(position, text, TEXT, font)
