"""Images and pieces of video become clips."""

import numpy as np
import pytest
import torch
from support.coco_layout import write_coco

from entitysam.data import DataError
from entitysam.data.synthetic.render import render_video
from entitysam.data.synthetic.writer import SyntheticSet, write_synthetic
from entitysam.data.training.coco import CocoPanoptic
from entitysam.data.training.panoptic_videos import PanopticVideos
from entitysam.data.training.pseudo_video import PseudoVideo, VideoClip
from entitysam.data.training.samples import ImageSample, VideoSample
from entitysam.registry import DATASETS, ConfigError, build

FIXED = {"flip_probability": 0.0, "angle": 0.0, "scale": (1.0, 1.0), "shift": 0.0}


def image(seed=0):
    frames, ids, categories = render_video(seed, 1, (96, 128))
    return ImageSample(frames[0], ids[0], categories, f"image {seed}")


def video(num_frames=6, seed=0):
    return VideoSample(*render_video(seed, num_frames, (96, 128)), f"video {seed}")


def rng(seed=0):
    return np.random.default_rng(seed)


def test_a_clip_of_an_image(tmp_path):
    mapper = build(DATASETS, {"name": "pseudo_video", "num_frames": 3}, "data.mapper", image_size=64)
    clip = mapper(CocoPanoptic(write_coco(tmp_path)).load(0), rng(1))
    assert clip.frames.shape == (3, 3, 64, 64)
    assert clip.frames.dtype == torch.uint8
    assert clip.frames.is_contiguous()
    assert clip.targets.masks.shape == (len(clip.targets), 3, 64, 64)
    assert clip.targets.masks.dtype == torch.bool
    assert clip.targets.categories.dtype == torch.int64
    assert set(clip.targets.categories.tolist()) <= {1, 7}
    assert clip.source.endswith("000.jpg")


def test_masks_are_disjoint_visible_and_void_outside():
    for seed in range(20):
        clip = PseudoVideo(4, 64)(image(seed), rng(seed))
        assert clip.targets.masks.sum(0).max() <= 1
        assert clip.targets.masks.flatten(1).any(1).all()
        black = (clip.frames == 0).all(1)
        assert (clip.targets.masks.any(0) | black).all()  # the images have no void of their own


def test_frames_differ_but_show_the_same_entities():
    clip = PseudoVideo(5, 64, scale=(2.0, 2.0))(image(), rng(3))
    assert all((clip.frames[t] != clip.frames[0]).any() for t in range(1, 5))
    areas = clip.targets.masks.flatten(2).sum(2).float()
    biggest = areas[areas.sum(1).argmax()]
    assert biggest.min() > 0.5 * biggest.max()


def test_masks_are_the_ids_of_the_image():
    sample = image()
    clip = PseudoVideo(1, 128, **FIXED)(sample, rng())
    numbers = np.unique(sample.ids)
    assert len(clip.targets) == len(numbers)
    for mask, category, number in zip(clip.targets.masks, clip.targets.categories, numbers):
        np.testing.assert_array_equal(mask[0, :96].numpy(), sample.ids == number)
        assert category == sample.categories[number]
    np.testing.assert_array_equal(clip.frames[0, :, :96].permute(1, 2, 0).numpy(), sample.image)


def test_entities_seen_on_no_frame_are_dropped():
    ids = np.ones((64, 64), np.int32)
    ids[:16, :16] = 2
    sample = ImageSample(np.full((64, 64, 3), 9, np.uint8), ids, {1: 5, 2: 6, 3: 8}, "a")
    counts = [len(PseudoVideo(2, 64, scale=(4.0, 4.0))(sample, rng(seed)).targets) for seed in range(30)]
    assert set(counts) == {1, 2}
    clip = PseudoVideo(2, 64, **FIXED)(sample, rng())
    assert clip.targets.categories.tolist() == [5, 6]  # 3 is listed and has no pixels


def test_only_void_gives_a_clip_without_targets():
    sample = ImageSample(np.full((40, 40, 3), 9, np.uint8), np.zeros((40, 40), np.int32), {}, "a")
    clip = PseudoVideo(2, 32)(sample, rng())
    assert clip.targets.masks.shape == (0, 2, 32, 32)
    assert clip.targets.categories.shape == (0,)


def test_max_targets_keeps_a_random_share():
    ids = np.arange(100).reshape(10, 10).repeat(8, 0).repeat(8, 1).astype(np.int32) + 1
    sample = ImageSample(np.zeros((80, 80, 3), np.uint8), ids, {n: n for n in range(1, 101)}, "a")
    mapper = PseudoVideo(1, 80, max_targets=30, **FIXED)
    kept = [mapper(sample, rng(seed)).targets.categories.tolist() for seed in range(40)]
    assert all(len(one) == 30 for one in kept)
    assert len({number for one in kept for number in one}) == 100
    assert len(PseudoVideo(1, 80, **FIXED)(sample, rng()).targets) == 100


def test_more_than_255_entities_stay_apart():
    ids = np.arange(400).reshape(20, 20).astype(np.int32) + 1
    sample = ImageSample(np.zeros((20, 20, 3), np.uint8), ids, {n: n for n in range(1, 401)}, "a")
    targets = PseudoVideo(1, 20, **FIXED)(sample, rng()).targets
    assert targets.categories.tolist() == list(range(1, 401))
    assert (targets.masks.flatten(1).sum(1) == 1).all()


def test_a_video_keeps_its_motion():
    sample = video()
    forwards = VideoClip(image_size=128, flip_probability=0, scale=(1, 1), reverse_probability=0)(sample, rng())
    backwards = VideoClip(image_size=128, flip_probability=0, scale=(1, 1), reverse_probability=1)(sample, rng())
    np.testing.assert_array_equal(forwards.frames[:, :, :96].permute(0, 2, 3, 1).numpy(), sample.frames)
    assert (backwards.frames == forwards.frames.flip(0)).all()
    assert (backwards.targets.masks == forwards.targets.masks.flip(1)).all()


def test_a_run_of_frames_of_a_piece_of_video():
    sample = video(6)
    mapper = VideoClip(num_frames=4, image_size=128, flip_probability=0, scale=(1, 1), reverse_probability=0)
    starts = set()
    for seed in range(20):
        frames = mapper(sample, rng(seed)).frames[:, :, :96].permute(0, 2, 3, 1).numpy()
        starts |= {start for start in range(3) if (frames == sample.frames[start : start + 4]).all()}
    assert starts == {0, 1, 2}


def test_wrong_samples_and_numbers_are_refused():
    with pytest.raises(DataError, match="video 0: mapper 'pseudo_video' takes images"):
        PseudoVideo(2, 32)(video(), rng())
    with pytest.raises(DataError, match="image 0: mapper 'video_clip' takes videos"):
        VideoClip(image_size=32)(image(), rng())
    with pytest.raises(DataError, match="num_frames 7, but the sample has 6 frames"):
        VideoClip(num_frames=7, image_size=32)(video(), rng())
    with pytest.raises(DataError, match="a: id 70000 is too large"):
        PseudoVideo(1, 8)(ImageSample(np.zeros((8, 8, 3), np.uint8), np.full((8, 8), 70000), {70000: 1}, "a"), rng())
    for arguments in ({"num_frames": 0}, {"image_size": 0}, {"max_targets": 0}, {"scale": (1.0,)}):
        with pytest.raises(ConfigError):
            PseudoVideo(**arguments)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("synthetic")
    plan = SyntheticSet(0, 0, train_videos=2, train_frames=5, val_videos=0, video_size=(48, 64))
    write_synthetic(root, plan)
    return root / "VIPSeg_720P"


def test_pieces_of_panoptic_videos(videos):
    dataset = build(DATASETS, {"name": "panoptic_videos", "root": videos, "num_frames": 2, "stride": 2})
    assert len(dataset) == 2 * 3  # starts 0, 1, 2 of each
    frames, ids, categories = render_video((0, 2, 1), 5, (48, 64))
    sample = dataset.load(4)
    assert sample.source.endswith("train_00001/00000001.jpg")
    numbers = np.unique(ids[[1, 3]])
    assert list(sample.categories.values()) == [categories[number] for number in numbers]
    for place, number in enumerate(numbers):
        np.testing.assert_array_equal(sample.ids == place + 1, ids[[1, 3]] == number)
    assert np.abs(sample.frames.astype(int) - frames[[1, 3]]).mean() < 12  # JPEG


def test_bad_panoptic_videos(videos, tmp_path):
    with pytest.raises(DataError, match="no video has the 6 frames"):
        PanopticVideos(videos, num_frames=6)
    with pytest.raises(DataError, match=r"panoptic_gt_VIPSeg_test\.json: no such file"):
        PanopticVideos(videos, split="test")
    with pytest.raises(DataError, match="panomasksRGB: no such folder"):
        PanopticVideos(tmp_path)
    with pytest.raises(ConfigError, match="stride 0"):
        PanopticVideos(videos, stride=0)
