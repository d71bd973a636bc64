import numpy as np
import pytest
from support.small_result import moving_squares

from entitysam.io.readers.base import InputError
from entitysam.io.readers.random_access import RandomAccess
from entitysam.io.readers.source import open_frames
from entitysam.io.writers.video import VideoWriter

FRAMES = 150


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A video in which every frame differs, with several key frames and uneven times."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    frames, _ = moving_squares(FRAMES, (48, 64))
    with VideoWriter(path, 64, 48, 25.0) as video:
        for index, frame in enumerate(frames):
            frame[:8, :8] = index
            video.add(frame, index / 25 + (0.4 if index > 60 else 0.0))
    return path


@pytest.mark.parametrize("stride", [1, 3])
def test_frames_in_any_order_are_those_of_a_pass(clip, stride):
    with open_frames(clip, stride=stride) as source:
        expected = list(source)
        times = [round(source.time(index), 6) for index in range(len(expected))]
    order = np.random.default_rng(0).permutation(len(expected))[:25].tolist()
    for known in (times, [None] * len(expected)):  # by key frames, and from the start
        access = RandomAccess(open_frames(clip, stride=stride), known)
        for index in [*order[: 25 if known is times else 4], 0, 1, 2, len(expected) - 1]:
            np.testing.assert_array_equal(access[index], expected[index], err_msg=f"frame {index}")
        with pytest.raises(InputError, match="cannot be decoded"):
            access[len(expected)]
        np.testing.assert_array_equal(access[5], expected[5])
        access.close()


def test_times_of_another_video_are_not_believed(clip):
    with open_frames(clip) as source:
        expected = list(source)
    access = RandomAccess(open_frames(clip), [index / 17 for index in range(FRAMES)])
    np.testing.assert_array_equal(access[100], expected[100])
    access.close()


def test_images_are_read_one_by_one(tmp_path):
    from PIL import Image

    for index in range(12):
        Image.new("RGB", (8, 6), (index, 0, 0)).save(tmp_path / f"{index}.png")
    access = RandomAccess(open_frames(tmp_path, stride=2), [None] * 6)
    assert [access[index][0, 0, 0] for index in (5, 0, 3)] == [10, 0, 6]
    access.close()
