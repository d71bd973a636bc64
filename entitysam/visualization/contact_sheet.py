"""The contact sheet: evenly chosen frames of a video, each original above its overlay."""

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

BACKGROUND = (24, 24, 27)
TEXT = (228, 228, 231)
MARGIN = 8
CAPTION = 26
GAP = 3  # between a frame and its overlay


class ContactSheet:
    """Collects frames as they come and draws the sheet at the end, without knowing the video's length beforehand.

    It keeps every k-th frame as a thumbnail and doubles k whenever there are too many, so memory is bounded.

    Args:
        count: frames on the sheet (fewer where the video is shorter).
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
        """Offers one frame: its name, uint8 [H, W, 3] RGB and the same with its entities drawn."""
        if self._seen % self._step == 0:
            self._kept.append((name, self._thumbnail(frame), self._thumbnail(overlay)))
            if len(self._kept) > 4 * self._count:
                self._kept = self._kept[::2]
                self._step *= 2
        self._seen += 1

    def chosen(self) -> list[str]:
        """Names of the frames that are on the sheet, in order."""
        return [name for name, _, _ in self._choose()]

    def draw(self, title: str) -> Image.Image:
        """The sheet with a title line.

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
        write_line(canvas, (MARGIN, MARGIN), title, 18, sheet.width - 2 * MARGIN)
        for index, (name, frame, overlay) in enumerate(chosen):
            row, column = divmod(index, columns)
            left, top = MARGIN + column * cell_width, header + row * cell_height
            write_line(canvas, (left, top), name, 15, width)
            sheet.paste(frame, (left, top + CAPTION))
            sheet.paste(overlay, (left, top + CAPTION + height + GAP))
        return sheet

    def _choose(self) -> list[tuple[str, Image.Image, Image.Image]]:
        places = np.linspace(0, len(self._kept) - 1, min(self._count, len(self._kept)))
        return [self._kept[place] for place in places.round().astype(int)]

    def _thumbnail(self, pixels: np.ndarray) -> Image.Image:
        height, width = pixels.shape[:2]
        if width > self._width:
            size = (self._width, max(1, round(height * self._width / width)))
            pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        return Image.fromarray(pixels)


def write_line(canvas: ImageDraw.ImageDraw, place: tuple[int, int], text: str, size: int, width: int) -> None:
    """One line of text, cut to a width in pixels."""
    font = ImageFont.load_default(size)
    while text and canvas.textlength(text, font) > width:
        text = text[:-2] + "…" if len(text) > 2 else ""
    canvas.text(place, text, TEXT, font)
