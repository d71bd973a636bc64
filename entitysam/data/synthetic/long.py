"""Long synthetic videos with exact ids: hundreds of entities that come, cross, go and return."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from entitysam.data.synthetic import textures
from entitysam.data.synthetic.random_scene import CATEGORY_ID, THING_EXTENT, THINGS, region
from entitysam.data.synthetic.render import DEFAULT_SIZE
from entitysam.data.synthetic.scene import Layer, Motion, Scene, render_frame
from entitysam.data.synthetic.shapes import hill, random_shape

NUM_BACKGROUNDS = 2
CROSSING = 120  # frames that a thing takes to cross the frame, on average
RETURNING = 0.4  # share of the things that cross a second time
AWAY = (60, 600)  # frames between the two visits
CACHED = 64  # things whose textures are in memory


@dataclass(frozen=True)
class Visit:
    """One crossing of the frame by a thing: from frame `start` to `end`, at a height and in a direction."""

    thing: int
    start: int
    end: int
    height: float
    direction: int


class LongVideo:
    """A long video; frame t is a pure function of the arguments and t, so that frames can be rendered in any order.

    Things cross the frame from side to side, pass each other, and leave. Some return later from a random side. A thing has
    id `NUM_BACKGROUNDS` + its number, counted from 1, on every frame; the backgrounds have ids 1 and 2.

    Args:
        seed: one number or several.
        num_frames: T.
        size: (height, width) in pixels.
        num_things: number of things over the whole video.

    Attributes:
        visits: of all things, in the order of their start.
    """

    def __init__(
        self,
        seed: int | Sequence[int],
        num_frames: int = 5000,
        size: tuple[int, int] = DEFAULT_SIZE,
        num_things: int = 220,
    ) -> None:
        self.seed = [seed] if isinstance(seed, int) else list(seed)
        self.num_frames, self.size, self.num_things = num_frames, size, num_things
        rng = np.random.default_rng([*self.seed, 0])
        self._backgrounds = [region(rng, "sky", None, 0.5), region(rng, "ground", hill(rng, 0.2, 3, 8), 0.8)]
        self.visits = sorted(self._plan(rng), key=lambda visit: (visit.start, visit.thing))
        self._thing = lru_cache(CACHED)(self._draw_thing)

    def categories(self) -> dict[int, int]:
        """Category id of every entity id."""
        things = {NUM_BACKGROUNDS + 1 + thing: CATEGORY_ID[self._family(thing)] for thing in range(self.num_things)}
        return {index + 1: layer.category for index, layer in enumerate(self._backgrounds)} | things

    def frame(self, time: int) -> tuple[np.ndarray, np.ndarray]:
        """Frame `time`: uint8 [H, W, 3] RGB, and ids int32 [H, W], never 0."""
        visits = [visit for visit in self.visits if visit.start <= time <= visit.end]
        visits.sort(key=lambda visit: visit.thing)  # a thing keeps its depth
        scene = Scene([*self._backgrounds, *(self._layer(visit) for visit in visits)])
        pixels, layers = render_frame(scene, time, self.size, np.random.default_rng([*self.seed, 1, time]))
        things = (NUM_BACKGROUNDS + 1 + visit.thing for visit in visits)
        return pixels, np.array([0, *range(1, NUM_BACKGROUNDS + 1), *things], np.int32)[layers]

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return (self.frame(time) for time in range(self.num_frames))

    def __len__(self) -> int:
        return self.num_frames

    def _plan(self, rng: np.random.Generator) -> Iterator[Visit]:
        """Things start at equal distances in time; some visit twice."""
        for thing in range(self.num_things):
            start = round(thing * self.num_frames / self.num_things)
            for _ in range(2 if rng.random() < RETURNING else 1):
                end = start + int(CROSSING * rng.uniform(0.6, 1.6))
                yield Visit(thing, start, end, rng.uniform(-0.38, 0.42), int(rng.choice([-1, 1])))
                start = end + int(rng.integers(*AWAY))

    def _family(self, thing: int) -> str:
        return THINGS[np.random.default_rng([*self.seed, 2, thing]).integers(len(THINGS))]

    def _draw_thing(self, thing: int) -> Layer:
        """A thing at rest; `_layer` moves it."""
        rng = np.random.default_rng([*self.seed, 3, thing])
        family, radius = self._family(thing), rng.uniform(0.07, 0.16)
        texture = textures.thing_texture(rng, int(np.clip(THING_EXTENT * radius * self.size[0], 32, 512)))
        motion = Motion(sway=(0.0, rng.uniform(0, 0.05)), rate=rng.uniform(0.05, 0.15), scale=radius)
        return Layer(CATEGORY_ID[family], random_shape(rng, family), texture, THING_EXTENT, motion)

    def _layer(self, visit: Visit) -> Layer:
        thing = self._thing(visit.thing)
        motion = thing.motion
        reach = self.size[1] / self.size[0] / 2 + 1.6 * motion.scale  # beyond the border, nothing of it is seen
        speed = visit.direction * 2 * reach / (visit.end - visit.start)
        position = (-visit.direction * reach - speed * visit.start, visit.height)
        moved = Motion(position, (speed, 0.0), motion.sway, motion.rate, scale=motion.scale)
        return Layer(thing.category, thing.shape, thing.texture, thing.texture_extent, moved)
