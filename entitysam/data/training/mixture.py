"""Several training sets as one, each drawn with a weight of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from entitysam.registry import ConfigError


@dataclass(frozen=True)
class Source:
    """One set of a mixture: samples by position, what makes clips of them, and its share of the clips (relative)."""

    dataset: Any
    mapper: Any
    weight: float = 1.0


class Mixture:
    """The sources of a data mix. In an epoch every source gives its share; the smaller ones are repeated.

    Args:
        sources: at least one.

    Raises:
        ConfigError: an empty source, or a weight that is not positive.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        if not sources:
            raise ConfigError("data.datasets: no source")
        for place, source in enumerate(sources):
            if not len(source.dataset):
                raise ConfigError(f"data.datasets.{place}: {type(source.dataset).__name__} has no samples")
            if not source.weight > 0:
                raise ConfigError(f"data.datasets.{place}.weight: must be positive, not {source.weight}")
        self.sources = list(sources)
        longest = max(len(source.dataset) / source.weight for source in sources)
        self.counts = [max(1, round(source.weight * longest)) for source in sources]

    def __len__(self) -> int:
        return sum(self.counts)

    def at(self, index: int) -> tuple[Source, int]:
        """The source of item `index` and the position of its sample there."""
        for source, count in zip(self.sources, self.counts):
            if index < count:
                return source, index % len(source.dataset)
            index -= count
        raise IndexError(index)
