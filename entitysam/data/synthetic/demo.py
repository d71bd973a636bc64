"""The demo clip: cut-outs of photographs that come inside scikit-image's wheel, moving over one of them, with exact ids.

A launch pad at night under a panning camera. A cat passes and comes back, an astronaut rises in front, a cup of coffee
goes behind her and appears again, a rocket takes off.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from entitysam.data.synthetic.textures import photograph

DEMO_SIZE = (270, 480)
BACKGROUND = "rocket.jpg"
OUTLINE_WIDTH = 320  # of the image that the outlines below are drawn on

# Outlines drawn by hand, (x, y) pixels of the photograph at a width of 320.
CAT = [(45, 62), (62, 20), (98, 2), (190, 6), (226, 40), (247, 78), (264, 92), (258, 118), (236, 150), (216, 178),
       (188, 203), (128, 206), (74, 168), (52, 126), (42, 92)]  # fmt: skip
ASTRONAUT = [(98, 44), (104, 20), (124, 8), (152, 7), (178, 16), (188, 40), (184, 64), (174, 78), (190, 104), (214, 124),
             (224, 150), (226, 190), (204, 224), (176, 262), (174, 316), (20, 316), (22, 210), (30, 160), (46, 140),
             (74, 124), (80, 102), (98, 94), (116, 96), (118, 76), (104, 62)]  # fmt: skip
CUP = [(92, 60), (93, 36), (108, 20), (134, 11), (166, 10), (196, 19), (215, 34), (227, 36), (223, 52), (216, 72),
       (240, 92), (253, 112), (254, 136), (240, 164), (206, 190), (168, 204), (128, 200), (90, 188), (58, 162), (42, 132),
       (42, 106), (56, 84), (78, 70)]  # fmt: skip
ROCKET = [(155, 204), (154, 78), (157, 68), (161, 64), (165, 68), (168, 78), (168, 204)]


@dataclass(frozen=True)
class Actor:
    """A cut-out and its way through the clip.

    Attributes:
        photograph: file of scikit-image.
        outline: of the entity in it.
        path: (x, y) of its middle in shares of the frame, at equal steps of time; straight lines between them.
        height: in shares of the frame's height, at the first and the last frame.
        turn: degrees over the whole clip.
    """

    photograph: str
    outline: list[tuple[int, int]]
    path: list[tuple[float, float]]
    height: tuple[float, float]
    turn: float = 0.0


# From far to near.
ACTORS = [
    Actor("rocket.jpg", ROCKET, [(0.12, 0.75), (0.12, 0.7), (0.14, 0.3), (0.16, -0.6)], (0.6, 0.6)),
    Actor("coffee.png", CUP, [(0.97, 0.25), (0.7, 0.3), (0.5, 0.35), (0.3, 0.3), (0.2, 0.25)], (0.3, 0.36), -15),
    Actor("astronaut.png", ASTRONAUT, [(0.6, 0.75), (0.57, 0.68), (0.6, 0.66), (0.64, 0.7)], (0.75, 0.85)),
    Actor("chelsea.png", CAT, [(0.3, 0.8), (-0.2, 0.78), (-0.2, 0.75), (0.3, 0.74)], (0.4, 0.46), 12),
]


def demo_clip(num_frames: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Renders the clip.

    Args:
        num_frames: T; the same motion, however many frames it is cut into.

    Returns:
        uint8 [T, 270, 480, 3] RGB and int32 [T, 270, 480] ids: 1 = the launch pad, 2.. = the actors from far to near.
    """
    height, width = DEMO_SIZE
    background, cutouts = photograph(BACKGROUND), [_cut_out(actor) for actor in ACTORS]
    frames, ids = np.empty((num_frames, height, width, 3), np.uint8), np.ones((num_frames, height, width), np.int32)
    for t, (frame, id_map) in enumerate(zip(frames, ids)):
        time = t / max(num_frames - 1, 1)
        frame[:] = _view(background, time)
        for number, (actor, cutout) in enumerate(zip(ACTORS, cutouts), start=2):
            patch = cv2.warpAffine(cutout, _place(actor, cutout, time), (width, height), flags=cv2.INTER_LINEAR)
            alpha = patch[..., 3:].astype(np.float32) / 255
            frame[:] = frame * (1 - alpha) + patch[..., :3] * alpha
            id_map[alpha[..., 0] > 0.5] = number
    return frames, ids


def _cut_out(actor: Actor) -> np.ndarray:
    """uint8 [h, w, 4] RGB and alpha, cropped to the outline."""
    pixels = photograph(actor.photograph)
    scale = OUTLINE_WIDTH / pixels.shape[1]
    corners = np.round(np.array(actor.outline) / scale).astype(np.int32)
    alpha = np.zeros(pixels.shape[:2], np.uint8)
    cv2.fillPoly(alpha, [corners], 255)
    left, top, box_width, box_height = cv2.boundingRect(corners)
    box = slice(top, top + box_height), slice(left, left + box_width)
    cutout = np.dstack([pixels, alpha])[box]
    # Shrunk to about its size in the clip, so that the bilinear warp does not alias.
    factor = min(1.0, 1.2 * max(actor.height) * DEMO_SIZE[0] / box_height)
    return cv2.resize(cutout, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


def _view(background: np.ndarray, time: float) -> np.ndarray:
    """The camera pans to the right and comes a little nearer."""
    height, width = DEMO_SIZE
    rows, columns = background.shape[:2]
    span = columns * (0.86 - 0.06 * time)
    left, top = (columns - span) * (0.1 + 0.8 * time), (rows - span * height / width) * 0.6
    scale = width / span
    view = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]])
    return cv2.warpAffine(background, view, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _place(actor: Actor, cutout: np.ndarray, time: float) -> np.ndarray:
    """[2, 3] map of the cut-out's (x, y) into the frame."""
    height, width = DEMO_SIZE
    x, y = (np.interp(time, np.linspace(0, 1, len(actor.path)), axis) for axis in zip(*actor.path))
    scale = (actor.height[0] + (actor.height[1] - actor.height[0]) * time) * height / cutout.shape[0]
    place = cv2.getRotationMatrix2D((cutout.shape[1] / 2, cutout.shape[0] / 2), actor.turn * time, scale)
    place[:, 2] += (x * width - cutout.shape[1] / 2, y * height - cutout.shape[0] / 2)
    return place
