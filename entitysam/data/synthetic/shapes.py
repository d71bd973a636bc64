"""Random outlines of the synthetic entities: shapes with holes and moving parts that deform over time.

Local coordinates are (x, y) with the shape inside about [-1, 1]^2.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Random = np.random.Generator


@dataclass
class Part:
    """A part of a shape. Contours are filled by the even-odd rule: inner contours are holes.

    Attributes:
        contours: float [P, 2] each.
        pivot: [2] centre of the swing.
        swing: maximum angle in radians; rate: radians of phase per frame; phase: at frame 0.
    """

    contours: list[np.ndarray]
    pivot: tuple[float, float] = (0.0, 0.0)
    swing: float = 0.0
    rate: float = 0.0
    phase: float = 0.0


@dataclass
class Shape:
    """Union of parts, deformed by a travelling wave of amplitude `wobble` and `rate` radians per frame."""

    parts: list[Part]
    wobble: float = 0.0
    rate: float = 0.0

    def contours(self, time: float) -> list[list[np.ndarray]]:
        """Contours of every part at `time` in frames."""
        return [[self._bend(_swing(part, contour, time), time) for contour in part.contours] for part in self.parts]

    def _bend(self, contour: np.ndarray, time: float) -> np.ndarray:
        if not self.wobble:
            return contour
        return contour + self.wobble * np.sin(3 * contour[:, ::-1] + self.rate * time)


def _swing(part: Part, contour: np.ndarray, time: float) -> np.ndarray:
    if not part.swing:
        return contour
    angle = part.swing * np.sin(part.rate * time + part.phase)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return (contour - part.pivot) @ turn + part.pivot


def ellipse(x: float, y: float, rx: float, ry: float, points: int = 48) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1)


def bar(start: tuple[float, float], end: tuple[float, float], width: float) -> np.ndarray:
    """A line segment with round ends."""
    a, b = np.array(start), np.array(end)
    heading = np.arctan2(*(b - a)[::-1])
    half_turn = np.linspace(np.pi / 2, 3 * np.pi / 2, 9) + heading
    cap = width / 2 * np.stack([np.cos(half_turn), np.sin(half_turn)], axis=1)
    return np.concatenate([a + cap, b - cap])


def ball(rng: Random) -> list[Part]:
    return [Part([ellipse(0, 0, 1, rng.uniform(0.55, 1))])]


def polygon(rng: Random) -> list[Part]:
    corners = int(rng.integers(3, 7))
    angle = 2 * np.pi * (np.arange(corners) + rng.uniform(-0.2, 0.2, corners)) / corners
    return [Part([np.stack([np.cos(angle), np.sin(angle) * rng.uniform(0.6, 1)], axis=1)])]


def star(rng: Random) -> list[Part]:
    tips = int(rng.integers(4, 9))
    radius = np.where(np.arange(2 * tips) % 2, rng.uniform(0.35, 0.6), 1)
    angle = np.pi * np.arange(2 * tips) / tips
    return [Part([radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)])]


def ring(rng: Random) -> list[Part]:
    """A disc with one wide hole, or with two or three round ones."""
    disc = ellipse(0, 0, 1, rng.uniform(0.75, 1))
    holes = int(rng.integers(1, 4))
    if holes == 1:
        return [Part([disc, disc * rng.uniform(0.45, 0.7)])]
    angle = 2 * np.pi * np.arange(holes) / holes
    return [Part([disc, *(ellipse(0.45 * np.cos(a), 0.4 * np.sin(a), 0.25, 0.25) for a in angle)])]


def flower(rng: Random) -> list[Part]:
    """Petals around a centre, half the time with a hole in the middle."""
    angle = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    radius = 1 - rng.uniform(0.1, 0.28) * (1 + np.cos(int(rng.integers(4, 10)) * angle))
    outline = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return [Part([outline] if rng.random() < 0.5 else [outline, ellipse(0, 0, 0.28, 0.28)])]


# Strokes ((x, y) to (x, y)) of capital letters in a box of 1.2 x 1.8.
Stroke = tuple[tuple[float, float], tuple[float, float]]
_LEFT, _RIGHT, _TOP, _BOTTOM = -0.6, 0.6, -0.9, 0.9
_STEM: Stroke = ((_LEFT, _TOP), (_LEFT, _BOTTOM))
_STROKES: dict[str, list[Stroke]] = {
    "L": [_STEM, ((_LEFT, _BOTTOM), (_RIGHT, _BOTTOM))],
    "T": [((0, _TOP), (0, _BOTTOM)), ((_LEFT, _TOP), (_RIGHT, _TOP))],
    "E": [_STEM, *(((_LEFT, y), (_RIGHT, y)) for y in (_TOP, 0, _BOTTOM))],
    "F": [_STEM, *(((_LEFT, y), (_RIGHT, y)) for y in (_TOP, 0))],
    "H": [_STEM, ((_RIGHT, _TOP), (_RIGHT, _BOTTOM)), ((_LEFT, 0), (_RIGHT, 0))],
    "A": [((_LEFT, _BOTTOM), (0, _TOP)), ((0, _TOP), (_RIGHT, _BOTTOM)), ((-0.33, 0.2), (0.33, 0.2))],
    "X": [((_LEFT, _TOP), (_RIGHT, _BOTTOM)), ((_LEFT, _BOTTOM), (_RIGHT, _TOP))],
    "Y": [((_LEFT, _TOP), (0, 0)), ((_RIGHT, _TOP), (0, 0)), ((0, 0), (0, _BOTTOM))],
    "U": [_STEM, ((_RIGHT, _TOP), (_RIGHT, _BOTTOM)), ((_LEFT, _BOTTOM), (_RIGHT, _BOTTOM))],
    "Z": [((_LEFT, _TOP), (_RIGHT, _TOP)), ((_RIGHT, _TOP), (_LEFT, _BOTTOM)), ((_LEFT, _BOTTOM), (_RIGHT, _BOTTOM))],
}


def letter(rng: Random) -> list[Part]:
    strokes = _STROKES[str(rng.choice(list(_STROKES)))]
    width = rng.uniform(0.34, 0.5)
    return [Part([bar(start, end, width)]) for start, end in strokes]


def creature(rng: Random) -> list[Part]:
    """A body with a head, legs and a tail, which swing about their joints."""
    length, height = rng.uniform(0.55, 0.75), rng.uniform(0.3, 0.5)
    rate, stride = rng.uniform(0.3, 0.9), rng.uniform(0.2, 0.6)
    body = Part([ellipse(0, 0, length, height)])
    head_y = -rng.uniform(0.2, 0.5)
    head = Part([ellipse(length, head_y, 0.28, 0.26)], (length / 2, 0), 0.15, rate)
    tail = Part([bar((-length + 0.1, 0), (-1, -0.45), 0.16)], (-length, 0), 0.4, 1.3 * rate)
    hips = np.linspace(-0.7, 0.7, int(rng.integers(2, 5))) * length
    legs = [
        Part([bar((x, 0.1), (x, 0.95), 0.22)], (x, 0.1), stride, rate, np.pi * index) for index, x in enumerate(hips)
    ]
    return [*legs, tail, body, head]


def cart(rng: Random) -> list[Part]:
    """A box on wheels with a cabin that has a window."""
    left, width = rng.uniform(-0.7, 0.0), rng.uniform(0.5, 0.8)
    wheel = rng.uniform(0.2, 0.3)
    deck = np.array([[-1, -0.1], [1, -0.1], [0.95, 0.45], [-0.95, 0.45]])
    cabin = np.array([[left + 0.12, -0.7], [left + width - 0.08, -0.7], [left + width, 0], [left, 0]])
    window = cabin.mean(0) + 0.5 * (cabin - cabin.mean(0)) - (0, 0.06)
    wheels = [Part([ellipse(x, 0.5, wheel, wheel)]) for x in (-0.6, 0.6)]
    return [Part([deck]), Part([cabin, window] if rng.random() < 0.7 else [cabin]), *wheels]


FAMILIES: dict[str, Callable[[Random], list[Part]]] = {
    "ball": ball,
    "polygon": polygon,
    "star": star,
    "ring": ring,
    "flower": flower,
    "letter": letter,
    "creature": creature,
    "cart": cart,
}


def random_shape(rng: Random, family: str) -> Shape:
    """A shape of a family; one in three deforms over time."""
    parts = FAMILIES[family](rng)
    wobble = rng.uniform(0.02, 0.07) if rng.random() < 1 / 3 else 0.0
    return Shape(parts, wobble, rng.uniform(0.2, 0.6))


def hill(rng: Random, level: float, width: float, depth: float) -> Shape:
    """The region below a wavy horizon at y = `level`; unit: one frame height, x from -width to width."""
    x = np.linspace(-width, width, 65)
    slope, height = rng.uniform(-0.12, 0.12), rng.uniform(0, 0.06)
    y = level + slope * x + height * np.sin(rng.uniform(2, 6) * x + rng.uniform(0, 6))
    return Shape([Part([np.concatenate([np.stack([x, y], axis=1), [[width, depth], [-width, depth]]])])])


def side(rng: Random, position: float, reach: float) -> Shape:
    """The region between a slanted vertical line at x = `position` and the nearer border."""
    lean, out = rng.uniform(-0.2, 0.2), np.copysign(reach, position)
    line = [[position - lean, -reach], [position + lean, reach]]
    return Shape([Part([np.array([*line, [out, reach], [out, -reach]])])])
