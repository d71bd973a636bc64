"""Draws tracked objects over a frame: masks like entities, boxes as rectangles, each in the colour of its id."""

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from entitysam.ops import rle_decode
from entitysam.structures import Detections
from entitysam.visualization.overlay import draw_entities, id_colours


def draw_tracks(frame: np.ndarray, ids: np.ndarray, objects: Detections) -> np.ndarray:
    """Returns a copy of the frame with its tracks drawn.

    Args:
        frame: uint8 [H, W, 3] RGB.
        ids: int [N] > 0.
        objects: N objects. Those with masks are tinted, small ones on top of large ones; the others get a rectangle.
    """
    has_mask = np.array([mask is not None for mask in objects.masks], bool)
    drawn = frame
    if has_mask.any():
        drawn = draw_entities(frame, masks_to_ids(frame.shape, ids[has_mask], objects[has_mask]))
    return draw_boxes(drawn, ids[~has_mask], objects.boxes[~has_mask])


def masks_to_ids(size: tuple[int, ...], ids: np.ndarray, objects: Detections) -> np.ndarray:
    """int32 [H, W]: at each pixel the id of the smallest mask that covers it, 0 = none.

    Args:
        size: (H, W).
        ids: int [N] > 0.
        objects: N objects, all with masks.
    """
    masks = [rle_decode(mask) for mask in objects.masks if mask is not None]
    id_map = np.zeros(size[:2], np.int32)
    for index in np.argsort([-mask.sum() for mask in masks], kind="stable"):  # large masks first, small ones on top
        id_map[masks[index]] = ids[index]
    return id_map


def draw_boxes(frame: np.ndarray, ids: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Returns a copy of the frame with rectangles in the colours of the ids, and the ids at their upper left corners.

    Args:
        frame: uint8 [H, W, 3] RGB.
        ids: int [N] > 0.
        boxes: float [N, 4] xyxy in pixels.
    """
    drawn = np.ascontiguousarray(frame.copy())
    thickness = max(1, round(min(frame.shape[:2]) / 270))
    corners = np.rint(np.clip(boxes, -1e4, 1e4)).astype(int)
    for number, (left, top, right, bottom) in zip(ids, corners):
        colour = tuple(int(value) for value in id_colours(int(number)))
        cv2.rectangle(drawn, (left, top), (right, bottom), colour, 2 * thickness)
    size = int(np.clip(min(frame.shape[:2]) / 32, 9, 30))
    font = ImageFont.load_default(size)
    image = Image.fromarray(drawn)
    canvas = ImageDraw.Draw(image)
    for number, (left, top, _, _) in zip(ids, corners):
        corner = (max(left, 0) + thickness, max(top, 0) + thickness)
        canvas.text(corner, str(number), "white", font, stroke_width=max(1, size // 8), stroke_fill="black")
    return np.asarray(image)
