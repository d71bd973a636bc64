"""A grid of the images that a classifier was given, with its answers as captions."""

import io
import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageOps

from entitysam.visualization.contact_sheet import BACKGROUND, CAPTION, MARGIN, draw_text

TILE = 200  # pixels of a tile's side
PADDING_COLOUR = (63, 63, 70)


def draw_image_grid(
    images: Sequence[bytes], captions: Sequence[str], title: str, columns: int | None = None
) -> Image.Image:
    """Draws the grid.

    Args:
        images: encoded images.
        captions: one line for each.
        title: a line above all.
        columns: images per row; 6 by default, and more where the grid would become very long.

    Raises:
        ValueError: no images, or not as many captions.
    """
    if not images or len(images) != len(captions):
        raise ValueError(f"a grid of {len(images)} images with {len(captions)} captions")
    columns = min(columns or max(6, math.isqrt(len(images))), len(images))
    rows = -(-len(images) // columns)
    header, cell = 2 * MARGIN + CAPTION, TILE + MARGIN
    grid = Image.new("RGB", (columns * cell + MARGIN, header + rows * (cell + CAPTION)), BACKGROUND)
    canvas = ImageDraw.Draw(grid)
    draw_text(canvas, (MARGIN, MARGIN), title, 18, grid.width - 2 * MARGIN)
    for index, (content, caption) in enumerate(zip(images, captions)):
        row, column = divmod(index, columns)
        left, top = MARGIN + column * cell, header + row * (cell + CAPTION)
        with Image.open(io.BytesIO(content)) as opened:
            tile = ImageOps.pad(opened.convert("RGB"), (TILE, TILE), color=PADDING_COLOUR)
        draw_text(canvas, (left, top), caption, 15, TILE)
        grid.paste(tile, (left, top + CAPTION))
    return grid
