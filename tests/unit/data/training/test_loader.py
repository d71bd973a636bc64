"""The stream of clips: the same on any number of workers and ranks, exactly resumable, errors by file."""

from itertools import islice

import numpy as np
import pytest
from support.coco_layout import write_coco

from entitysam.data import DataError
from entitysam.data.training.coco import CocoPanoptic
from entitysam.data.training.loader import ClipStream, build_loader
from entitysam.data.training.pseudo_video import PseudoVideo
from entitysam.registry import ConfigError

COUNT = 5


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return CocoPanoptic(write_coco(tmp_path_factory.mktemp("coco"), count=COUNT))


def clips(dataset, count, **settings):
    settings = {"seed": 3, "num_workers": 0, **settings}
    return list(islice(build_loader(dataset, PseudoVideo(2, 32), **settings), count))


def same(first, second):
    return len(first) == len(second) and all(
        a.index == b.index
        and a.source == b.source
        and a.frames.equal(b.frames)
        and a.targets.masks.equal(b.targets.masks)
        for a, b in zip(first, second)
    )


def test_any_number_of_workers_gives_the_same_clips(dataset):
    alone = clips(dataset, 8)
    assert [clip.index for clip in alone] == list(range(8))
    assert same(alone, clips(dataset, 8, num_workers=2))
    assert not same(alone, clips(dataset, 8, seed=4))


def test_every_epoch_shows_every_sample_once_in_its_own_order(dataset):
    sources = [clip.source for clip in clips(dataset, 4 * COUNT)]
    epochs = [sources[i * COUNT : (i + 1) * COUNT] for i in range(4)]
    assert all(len(set(epoch)) == COUNT for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_a_sample_is_augmented_anew_in_every_epoch(dataset):
    shown = [clip for clip in clips(dataset, 4 * COUNT) if clip.source.endswith("000.jpg")]
    assert len(shown) == 4
    assert len({clip.frames.numpy().tobytes() for clip in shown}) == 4


@pytest.mark.parametrize("start", [1, 4, 7, 13])
def test_it_resumes_exactly(dataset, start):
    assert same(clips(dataset, 18)[start:], clips(dataset, 18 - start, start=start))


def test_ranks_share_the_stream_without_overlap(dataset):
    whole = clips(dataset, 12, start=5)
    shards = [clips(dataset, 4, start=5, rank=rank, world_size=3) for rank in range(3)]
    assert same(whole, [shards[k % 3][k // 3] for k in range(12)])


def test_a_clip_is_a_pure_function_of_seed_and_place(dataset):
    stream = ClipStream(dataset, PseudoVideo(2, 32), 3)
    late = stream[11]
    stream[0]
    assert same([late], [stream[11]])
    assert same([late], clips(dataset, 1, start=11))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_bad_file_is_named_in_one_line_when_its_turn_comes(tmp_path, num_workers):
    dataset = CocoPanoptic(write_coco(tmp_path, count=COUNT))
    bad = ClipStream(dataset, PseudoVideo(1, 32), 3).sample_index(2)
    (tmp_path / f"train2017/{bad:03d}.jpg").write_bytes(b"x")
    loader = build_loader(dataset, PseudoVideo(1, 32), seed=3, num_workers=num_workers)
    next(loader)
    next(loader)
    with pytest.raises(
        DataError, match=rf"{bad:03d}\.jpg: not an image that can be read.*clip 2 of the data order"
    ) as error:
        next(loader)
    assert "\n" not in str(error.value)


class Empty:
    def __len__(self):
        return 0

    def load(self, index):
        raise AssertionError


def test_bad_settings(dataset):
    with pytest.raises(DataError, match="Empty: no samples"):
        build_loader(Empty(), PseudoVideo(1, 32), seed=0)
    for settings in ({"rank": 2, "world_size": 2}, {"start": -1}, {"num_workers": -1}):
        with pytest.raises(ConfigError, match="out of range"):
            build_loader(dataset, PseudoVideo(1, 32), seed=0, **settings)


def test_the_shuffle_is_even():
    class Numbers:
        def __len__(self):
            return 10

    stream = ClipStream(Numbers(), PseudoVideo(1, 32), 0)
    first = np.bincount([stream.sample_index(10 * epoch) for epoch in range(2000)], minlength=10)
    assert first.min() > 140
    assert first.max() < 260
