"""Draws entity maps over frames: tint, outline and id of every entity, in the colour of its id."""

from collections.abc import Mapping
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

NUM_COLOURS = 255
LABEL_MAP_SIDE = 480  # label positions are searched on a map of at most this side


def id_colours(ids: np.ndarray | int) -> np.ndarray:
    """RGB colours of entity ids [...]: uint8 [..., 3]; black for 0.

    A colour depends only on the id. The colours of the first ids differ most; after 255 ids they repeat.
    """
    ids = np.asarray(ids)
    return _palette()[np.where(ids > 0, (ids - 1) % NUM_COLOURS + 1, 0)]


@lru_cache(maxsize=1)
def _palette() -> np.ndarray:
    """uint8 [256, 3]: black, then 255 colours, each the one with the largest distance from all before it."""
    levels = np.linspace(0, 255, 18).round()
    rgb = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)
    lab = oklab(rgb)
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    vivid = (chroma > 0.12) & (lab[:, 0] > 0.5) & (lab[:, 0] < 0.93)  # not grey, dark or pale
    rgb, lab = rgb[vivid], lab[vivid]
    # Farthest point sampling, from red on.
    chosen = [int(np.argmin(np.abs(rgb - (255, 60, 60)).sum(1)))]
    distance = np.linalg.norm(lab - lab[chosen[0]], axis=1)
    while len(chosen) < NUM_COLOURS:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(lab - lab[chosen[-1]], axis=1))
    return np.concatenate([np.zeros((1, 3)), rgb[chosen]]).astype(np.uint8)


def oklab(rgb: np.ndarray) -> np.ndarray:
    """sRGB colours in 0..255, [..., 3] -> OKLab (lightness 0..1, a, b), where Euclidean distances are close to perceived ones.

    Björn Ottosson, "A perceptual color space for image processing", 2020.
    """
    value = np.asarray(rgb, float) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    to_cones = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566]]
    to_cones.append([0.0883024619, 0.2817188376, 0.6299787005])
    to_lab = [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099]]
    to_lab.append([0.0259040371, 0.7827717662, -0.8086757660])
    return np.cbrt(linear @ np.array(to_cones).T) @ np.array(to_lab).T


def draw_entities(
    frame: np.ndarray,
    ids: np.ndarray,
    opacity: float = 0.45,
    labels: bool = True,
    names: Mapping[int, str] | None = None,
    colours: Mapping[int, tuple[int, ...]] | None = None,
) -> np.ndarray:
    """Returns a copy of the frame with its entities tinted, outlined and numbered.

    Args:
        frame: uint8 [H, W, 3] RGB.
        ids: int [H', W']; 0 = no entity, not drawn. A map of another size than the frame is scaled to it.
        opacity: of the tint, 0..1; outlines are opaque.
        labels: write each entity's id where it is widest.
        names: entity id -> text in front of the id.
        colours: entity id -> (R, G, B) of the entities that have another colour than that of their id.
    """
    if ids.shape != frame.shape[:2]:
        ids = cv2.resize(ids.astype(np.int32), frame.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    tint = id_colours(ids)
    for entity, colour in (colours or {}).items():
        tint[ids == entity] = colour
    drawn = frame.copy()
    cv2.copyTo(cv2.addWeighted(frame, 1 - opacity, tint, opacity, 0), (ids > 0).astype(np.uint8), drawn)
    outline, border = find_outlines(ids, width=max(1, round(min(ids.shape) / 270)))
    drawn[outline] = tint[outline]
    drawn[border] = 20
    return _draw_labels(drawn, ids, names or {}) if labels else drawn


def find_outlines(ids: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of the outlines of a map.

    Args:
        ids: int [H, W].
        width: of the coloured line inside each entity, in pixels.

    Returns:
        two bool [H, W]: the outline, pixels of entities within `width` of another id; and the border, the one-pixel line outside of
        it, pixels that differ from the one to their left or above. The border of the image is not an outline.
    """
    edge = np.zeros(ids.shape, np.uint8)
    edge[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    edge[1:] |= ids[1:] != ids[:-1]
    border = edge.astype(bool)
    size = 2 * width + 1
    # `edge` marks the right or lower one of two different pixels, hence `2 * width + 1` reaches `width` on both sides.
    near = cv2.dilate(edge, np.ones((size, size), np.uint8))
    return near.astype(bool) & (ids > 0) & ~border, border


def _draw_labels(drawn: np.ndarray, ids: np.ndarray, names: Mapping[int, str]) -> np.ndarray:
    size = int(np.clip(min(ids.shape) / 24, 10, 40))
    font = ImageFont.load_default(size)
    image = Image.fromarray(drawn)
    canvas = ImageDraw.Draw(image)
    for entity, (x, y), radius in label_positions(ids):
        if radius > 0.6 * size:
            stroke = max(1, size // 8)
            text = " ".join([*names.get(entity, "").split(), str(entity)])  # one line, which Pillow can measure
            half = canvas.textlength(text, font) / 2 + stroke
            x = max(min(x, image.width - half), half)  # long names stay inside the image
            canvas.text((x, y), text, "white", font, anchor="mm", stroke_width=stroke, stroke_fill="black")
    return np.asarray(image)


def label_positions(ids: np.ndarray) -> list[tuple[int, tuple[float, float], float]]:
    """For each entity: (id, centre (x, y), radius) of about the largest circle inside it, in pixels of `ids`.

    Among the positions whose radius is close to the largest, the one closest to the entity's centroid is taken: long
    shapes have many of them, and the label should not jump between them from frame to frame.
    """
    step = -(-max(ids.shape) // LABEL_MAP_SIDE)
    small = ids[::step, ::step]
    positions = []
    for index, slices in enumerate(ndimage.find_objects(small)):
        if slices is None:
            continue
        # The border of the image counts as outside.
        inside = np.pad((small[slices] == index + 1).astype(np.uint8), 1)
        distance = cv2.distanceTransform(inside, cv2.DIST_L2, 3)
        wide = np.argwhere(distance >= 0.85 * distance.max())
        middle = np.argwhere(inside).mean(0)
        row, column = wide[((wide - middle) ** 2).sum(1).argmin()].tolist()
        x, y = (slices[1].start + column - 1) * step, (slices[0].start + row - 1) * step
        positions.append((index + 1, (float(x), float(y)), float(distance[row, column] * step)))
    return positions
