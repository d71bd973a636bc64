"""Cut-outs over photos: exact ids, motion, determinism; colour changes; mixtures of sets."""

import numpy as np
import pytest
import torch

from entitysam.data.training.colour import colour_jitter
from entitysam.data.training.cutout_video import CutoutVideo
from entitysam.data.training.loader import ClipStream
from entitysam.data.training.mixture import Mixture, Source
from entitysam.data.training.samples import ImageSample, VideoSample
from entitysam.registry import ConfigError

STILL = {"scale": (1.0, 1.0), "aspect": 1.0, "angle": 0.0, "camera": 0.0, "colour": 0.0}


def photo(seed=0, height=60, width=80):
    """Two halves in plain colours and a square of a third."""
    image, ids = np.full((height, width, 3), (200, 30, 30), np.uint8), np.ones((height, width), np.int32)
    image[:, width // 2 :], ids[:, width // 2 :] = (30, 200, 30), 2
    image[20:40, 20:40], ids[20:40, 20:40] = (20, 20, 220), 3
    return ImageSample(image, ids, {1: 1, 2: 1, 3: 7}, f"photo {seed}")


def test_without_motion_the_photo_is_stretched_to_the_square():
    clip = CutoutVideo(image_size=40, cutouts=0, **STILL)(photo(), np.random.default_rng(0))
    assert clip.frames.shape == (1, 3, 40, 40)
    assert len(clip.targets) == 3
    assert clip.targets.masks.sum().item() == 1600
    assert clip.targets.categories.tolist() == [1, 1, 7]
    square = clip.targets.masks[2, 0].nonzero().float().mean(0)  # flipped or not, it is at the same height
    assert square[0].item() == pytest.approx(19.5, abs=0.6)


def test_ids_follow_the_pixels_under_a_moving_camera():
    mapper = CutoutVideo(num_frames=3, image_size=64, cutouts=0, colour=0.0, camera=0.05)
    clip = mapper(photo(), np.random.default_rng(3))
    blue = (clip.frames[:, 2] > 150) & (clip.frames[:, 0] < 90)
    number = clip.targets.categories.tolist().index(7)
    overlap = (blue & clip.targets.masks[number]).sum() / (blue | clip.targets.masks[number]).sum()
    assert overlap > 0.85
    assert not torch.equal(clip.frames[0], clip.frames[2])


def test_cutouts_move_over_the_photo_and_occlude_it():
    mapper = CutoutVideo(num_frames=4, image_size=64, cutouts=3, motion=0.1, **STILL)
    found = 0
    for seed in range(6):
        clip = mapper(photo(), np.random.default_rng(seed), photo(1), photo(2), photo(3))
        masks = clip.targets.masks
        assert masks.sum(0).max() <= 1  # disjoint
        for mask in masks[3:]:
            places = [one.nonzero().float().mean(0) for one in mask if one.any()]
            found += len(places) > 1 and bool((places[0] - places[-1]).abs().max() > 2)
            blue = clip.frames[:, 2][mask].float().mean()
            assert blue > 120  # only the blue square is compact enough to be cut out
    assert found >= 3


def test_the_same_generator_gives_the_same_clip():
    mapper = CutoutVideo(num_frames=2, image_size=32)
    first, second = (mapper(photo(), np.random.default_rng(5), photo(1), photo(2)) for _ in range(2))
    assert torch.equal(first.frames, second.frames)
    assert torch.equal(first.targets.masks, second.targets.masks)


def test_a_piece_of_video_keeps_its_own_motion():
    frames, ids = np.zeros((5, 40, 40, 3), np.uint8), np.ones((5, 40, 40), np.int32)
    for t in range(5):
        ids[t, 10:20, 5 * t : 5 * t + 10] = 2
        frames[t][ids[t] == 2] = 255
    sample = VideoSample(frames, ids, {1: 1, 2: 1}, "video")
    clip = CutoutVideo(num_frames=3, image_size=40, cutouts=0, **STILL)(sample, np.random.default_rng(0))
    columns = [mask.nonzero().float().mean(0)[1].item() for mask in clip.targets.masks[1]]
    assert abs(columns[2] - columns[0]) == pytest.approx(10, abs=0.5)
    assert ((clip.frames[:, 0] > 127) == clip.targets.masks[1]).float().mean() > 0.99


def test_void_is_known_and_tiny_pieces_are_void():
    sample = photo()
    sample.ids[:, 70:] = 0
    sample.ids[0, 0], sample.categories[4] = 4, 1
    clip = CutoutVideo(image_size=60, cutouts=0, **STILL)(sample, np.random.default_rng(0))
    assert len(clip.targets) == 3
    assert (clip.targets.ids == 0).float().mean() > 0.1


def test_colours_change_but_not_at_strength_0():
    image, rng = photo().image, np.random.default_rng(0)
    assert colour_jitter(image, 0.0, rng) is image
    changed = colour_jitter(image, 1.0, rng)
    assert changed.shape == image.shape
    assert changed.dtype == np.uint8
    assert (changed != image).any()


@pytest.mark.parametrize("change", [{"num_frames": 0}, {"scale": (2.0, 1.0)}, {"aspect": 0.5}, {"cutouts": -1}])
def test_refuses(change):
    with pytest.raises(ConfigError):
        CutoutVideo(**change)


class Photos(list):
    def load(self, index):
        return self[index]


def test_a_mixture_draws_by_weight_and_shows_everything():
    mapper = CutoutVideo(image_size=16, cutouts=1)
    large, small = Photos(photo(n) for n in range(6)), Photos(photo(n) for n in range(10, 12))
    mixture = Mixture([Source(large, mapper, 0.5), Source(small, mapper, 0.5)])
    stream = ClipStream(mixture, None, seed=0)
    sources = [stream[k].source for k in range(len(mixture))]
    assert len(mixture) == 12
    assert {sources.count(f"photo {n}") for n in range(6)} == {1}
    assert {sources.count(f"photo {n}") for n in (10, 11)} == {3}


def test_a_mixture_refuses_empty_sources_and_odd_weights():
    mapper = CutoutVideo(image_size=16)
    with pytest.raises(ConfigError, match=r"datasets\.1: Photos has no samples"):
        Mixture([Source(Photos([photo()]), mapper), Source(Photos(), mapper)])
    with pytest.raises(ConfigError, match=r"datasets\.0\.weight"):
        Mixture([Source(Photos([photo()]), mapper, 0.0)])
