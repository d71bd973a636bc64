"""The endless stream of training clips: sharded over ranks, exactly resumable, the same on any number of workers.

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
from entitysam.data.training.samples import ImageDataset, VideoDataset
from entitysam.registry import ConfigError
from entitysam.structures import Clip

Mapper = Callable[..., Clip]  # (sample, generator, partners...) -> clip
SHUFFLE, AUGMENT = 0, 1  # keep the two uses of the seed apart


class ClipStream(Dataset):
    """Clip k of the stream at index k, for every k >= 0.

    Args:
        dataset: samples.
        mapper: makes a clip of a sample; one with an attribute `partners` gets so many further samples, drawn at random.
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
        """Which sample clip k is made of; every epoch shows every sample once."""
        epoch, place = divmod(k, len(self.dataset))
        if epoch != self._epoch:
            rng = np.random.default_rng((self.seed, SHUFFLE, epoch))
            self._epoch, self._order = epoch, rng.permutation(len(self.dataset))
        return int(self._order[place])

    def __getitem__(self, k: int) -> Clip:
        sample = self.dataset.load(self.sample_index(k))
        rng = np.random.default_rng((self.seed, AUGMENT, k))
        others = rng.integers(len(self.dataset), size=getattr(self.mapper, "partners", 0))
        clip = self.mapper(sample, rng, *(self.dataset.load(int(other)) for other in others))
        clip.index = k
        return clip


class _Guarded(Dataset):
    """Hands a bad file's message out as a value: raised in a worker, it would arrive inside a page of traceback."""

    def __init__(self, stream: ClipStream) -> None:
        self.stream = stream

    def __getitem__(self, k: int) -> "Clip | str":
        try:
            return self.stream[k]
        except DataError as error:
            return f"{error} (clip {k} of the data order)"


class _EveryNth(Sampler[int]):
    """start, start + step, start + 2 step, ... without end."""

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
    """The clips of one rank, without end.

    Args:
        dataset: samples by position.
        mapper: (sample, generator) -> clip.
        seed: of the whole stream.
        start: clips consumed so far by all ranks together; 0 begins, any other number resumes exactly there.
        rank, world_size: this rank gets clips start + rank, start + rank + world_size, ...
        num_workers: processes that prepare clips ahead; 0 prepares them in this one.
        pin_memory: hand out clips in page-locked memory, for copies to a GPU that do not wait.

    Returns:
        Iterator of `Clip`; `clip.index` is its place in the stream. It raises DataError, naming the file, when it comes
        to a file that cannot be used.

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
