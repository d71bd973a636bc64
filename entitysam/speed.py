"""Levels of speed: what the network leaves out at inference, from 0 = exact to 3. Their price stands in docs/BENCHMARKS.md."""

from dataclasses import dataclass

from entitysam.registry import ConfigError


@dataclass(frozen=True)
class Speed:
    """What is left out at inference. The defaults leave nothing out.

    Attributes:
        prune: an entity that was not seen for so many passes is dormant: no memory of it is read or written until it is seen
            again. All Q queries stay in the decoder. 0: no entity is ever dormant.
        min_score: an entity with a lower score is not seen on a frame.
        pool: the memory is read as means over pool x pool cells.
        keyframe: the network runs on every so manieth frame; between, masks follow the optical flow.
        max_change: a frame on which the flow leaves a mean absolute error of more grey levels (of 255) is a keyframe, too.
    """

    prune: int = 0
    min_score: float = 0.05
    pool: int = 1
    keyframe: int = 1
    max_change: float = 12.0


EXACT = Speed()
LEVELS = {
    0: EXACT,
    1: Speed(prune=8, pool=2),
    2: Speed(prune=8, pool=2, keyframe=3),
    3: Speed(prune=8, pool=2, keyframe=8),
}


def speed_of(level: int) -> Speed:
    """The `Speed` of `inference.fast`.

    Raises:
        ConfigError: no such level.
    """
    if level not in LEVELS:
        raise ConfigError(f"inference.fast: {', '.join(map(str, LEVELS))}, not {level}")
    return LEVELS[level]
