"""The infinite stream of training clips: sharded over ranks, exactly resumable, independent of the number of workers.

Clip k of the stream is a pure function of (seed, k): k // len(dataset) is the epoch, whose shuffle is drawn from
(seed, epoch), and the augmentation of the clip is drawn from (seed, k). So the only state of a run's data is the number
of clips consumed.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from entitysam.data.images import DataError
from entitysam.data.parallel import one_thread
from entitysam.data.training.mixture import Mixture
from entitysam.data.training.samples import ImageDataset, VideoDataset
from entitysam.registry import ConfigError
from entitysam.structures import Clip

Mapper = Callable[..., Clip]  # (sample, generator, partners...) -> clip
SHUFFLE, AUGMENT = 0, 1  # keep the two uses of the seed apart


class ClipStream(Dataset):
    """Dataset whose item k is clip k of the stream, for every k >= 0.

    Args:
        dataset: samples.
        mapper: maps a sample to a clip; if it has an attribute `partners`, it gets that many further random samples.
        seed: of shuffles and augmentations.

    Raises:
        DataError: an empty data set.
    """

    def __init__(self, dataset: ImageDataset | VideoDataset, mapper: Mapper, seed: int) -> None:
        if not len(dataset):
            raise DataError(f"{type(dataset).__name__}: no samples in the data set")
        self.dataset, self.mapper, self.seed = dataset, mapper, seed
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def sample_index(self, k: int) -> int:
        """Index of the sample of clip k; every epoch contains every sample once."""
        epoch, place = divmod(k, len(self.dataset))
        if epoch != self._epoch:
            rng = np.random.default_rng((self.seed, SHUFFLE, epoch))
            self._epoch, self._order = epoch, rng.permutation(len(self.dataset))
        return int(self._order[place])

    def __getitem__(self, k: int) -> Clip:
        dataset, mapper, place = self.dataset, self.mapper, self.sample_index(k)
        if isinstance(dataset, Mixture):  # partners come from the same source
            source, place = dataset.at(place)
            dataset, mapper = source.dataset, source.mapper
        sample = dataset.load(place)
        rng = np.random.default_rng((self.seed, AUGMENT, k))
        others = rng.integers(len(dataset), size=getattr(mapper, "partners", 0))
        clip = mapper(sample, rng, *(dataset.load(int(other)) for other in others))
        clip.index = k
        return clip


class _Guarded(Dataset):
    """Returns the message of a DataError instead of raising it: an exception of a worker is wrapped in its traceback."""

    def __init__(self, stream: ClipStream) -> None:
        self.stream = stream

    def __getitem__(self, k: int) -> "Clip | str":
        try:
            return self.stream[k]
        except DataError as error:
            return f"{error} (clip {k} of the data order)"


class _EveryNth(Sampler[int]):
    """Yields start, start + step, start + 2 step, ... infinitely."""

    def __init__(self, start: int, step: int) -> None:
        self.start, self.step = start, step

    def __iter__(self) -> Iterator[int]:
        k = self.start
        while True:
            yield k
            k += self.step


def build_loader(
    dataset: ImageDataset | VideoDataset,
    mapper: Mapper,
    *,
    seed: int,
    start: int = 0,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 4,
    pin_memory: bool = False,
) -> Iterator[Clip]:
    """Infinite iterator over the clips of one rank.

    Args:
        dataset: samples by position.
        mapper: (sample, generator) -> clip.
        seed: of the whole stream.
        start: number of clips consumed by all ranks together; a run resumes exactly there.
        rank, world_size: this rank gets clips start + rank, start + rank + world_size, ...
        num_workers: worker processes; 0 = prepare clips in this process.
        pin_memory: return clips in page-locked memory, for asynchronous copies to a GPU.

    Returns:
        Iterator of `Clip`; `clip.index` is its position in the stream. It raises DataError, which names the file, at a
        file that cannot be used.

    Raises:
        DataError: an empty data set.
        ConfigError: rank, start or num_workers out of range.
    """
    if not 0 <= rank < world_size or start < 0 or num_workers < 0:
        raise ConfigError(f"rank {rank} of {world_size}, start {start}, num_workers {num_workers}: out of range")
    loader = DataLoader(
        _Guarded(ClipStream(dataset, mapper, seed)),
        batch_size=None,
        sampler=_EveryNth(start + rank, world_size),
        num_workers=num_workers,
        pin_memory=pin_memory and torch.cuda.is_available(),
        persistent_workers=num_workers > 0,
        worker_init_fn=_start_worker if num_workers else None,
    )
    return _clips(loader)


def _start_worker(worker: int) -> None:
    one_thread()


def _clips(loader: DataLoader) -> Iterator[Clip]:
    for clip in loader:
        if isinstance(clip, str):
            raise DataError(clip)
        yield clip
