"""Tracked objects drawn over a frame: masks as entities are drawn, boxes as frames; colours belong to ids."""

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from entitysam.ops import rle_decode
from entitysam.structures import Detections
from entitysam.visualization.overlay import colour_of, draw_entities


def draw_tracks(frame: np.ndarray, ids: np.ndarray, objects: Detections) -> np.ndarray:
    """A copy of the frame with its tracks drawn.

    Args:
        frame: uint8 [H, W, 3] RGB.
        ids: int [N] > 0.
        objects: the N objects. Those with masks are tinted, small ones in front of large ones; the others are framed.
    """
    has_mask = np.array([mask is not None for mask in objects.masks], bool)
    drawn = draw_entities(frame, paint(frame.shape[:2], ids[has_mask], objects[has_mask])) if has_mask.any() else frame
    return draw_boxes(drawn, ids[~has_mask], objects.boxes[~has_mask])


def paint(size: tuple[int, ...], ids: np.ndarray, objects: Detections) -> np.ndarray:
    """int32 [H, W]: the id of the smallest mask that covers a pixel, 0 = none; all objects have masks."""
    masks = [rle_decode(mask) for mask in objects.masks if mask is not None]
    painted = np.zeros(size[:2], np.int32)
    for place in np.argsort([-mask.sum() for mask in masks], kind="stable"):
        painted[masks[place]] = ids[place]
    return painted


def draw_boxes(frame: np.ndarray, ids: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """A copy of the frame with boxes [N, 4] xyxy framed in their ids' colours, and the ids at their upper left."""
    drawn = np.ascontiguousarray(frame.copy())
    thickness = max(1, round(min(frame.shape[:2]) / 270))
    corners = np.rint(np.clip(boxes, -1e4, 1e4)).astype(int)
    for number, (left, top, right, bottom) in zip(ids, corners):
        colour = tuple(int(value) for value in colour_of(int(number)))
        cv2.rectangle(drawn, (left, top), (right, bottom), colour, 2 * thickness)
    size = int(np.clip(min(frame.shape[:2]) / 32, 9, 30))
    font = ImageFont.load_default(size)
    image = Image.fromarray(drawn)
    canvas = ImageDraw.Draw(image)
    for number, (left, top, _, _) in zip(ids, corners):
        place = (max(left, 0) + thickness, max(top, 0) + thickness)
        canvas.text(place, str(number), "white", font, stroke_width=max(1, size // 8), stroke_fill="black")
    return np.asarray(image)
