"""A sheet of the pictures that a classifier gets, with its answers, for people to look at."""

import io
import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageOps

from entitysam.visualization.contact_sheet import BACKGROUND, CAPTION, MARGIN, write_line

TILE = 200  # pixels of a tile's side
FRAME_COLOUR = (63, 63, 70)


def draw_sheet(
    pictures: Sequence[bytes], captions: Sequence[str], title: str, columns: int | None = None
) -> Image.Image:
    """The sheet.

    Args:
        pictures: encoded images.
        captions: a line for each.
        title: a line above all.
        columns: pictures side by side; 6 by default, and more where the sheet would become very long.

    Raises:
        ValueError: no pictures, or not as many captions.
    """
    if not pictures or len(pictures) != len(captions):
        raise ValueError(f"a sheet of {len(pictures)} pictures with {len(captions)} captions")
    columns = min(columns or max(6, math.isqrt(len(pictures))), len(pictures))
    rows = -(-len(pictures) // columns)
    header, cell = 2 * MARGIN + CAPTION, TILE + MARGIN
    sheet = Image.new("RGB", (columns * cell + MARGIN, header + rows * (cell + CAPTION)), BACKGROUND)
    canvas = ImageDraw.Draw(sheet)
    write_line(canvas, (MARGIN, MARGIN), title, 18, sheet.width - 2 * MARGIN)
    for index, (content, caption) in enumerate(zip(pictures, captions)):
        row, column = divmod(index, columns)
        left, top = MARGIN + column * cell, header + row * (cell + CAPTION)
        with Image.open(io.BytesIO(content)) as opened:
            tile = ImageOps.pad(opened.convert("RGB"), (TILE, TILE), color=FRAME_COLOUR)
        write_line(canvas, (left, top), caption, 15, TILE)
        sheet.paste(tile, (left, top + CAPTION))
    return sheet
