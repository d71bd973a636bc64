"""`segment_video` on frames in memory."""

import numpy as np
from PIL import Image

import entitysam

SETTINGS = {"warmup_frames": 1, "score_threshold": 0.0, "overlap_threshold": 0.0}


def test_lists_of_arrays_images_and_generators_give_the_same(small_model, small_video):
    frames = small_video[:3]
    expected = entitysam.segment_video(small_model, frames, **SETTINGS)
    assert expected.ids.shape == (3, 48, 80)
    assert len(np.unique(expected.ids)) > 1
    images = [Image.fromarray(frame) for frame in frames]
    for source in (images, iter(images), np.stack(frames), (frame for frame in frames)):
        result = entitysam.segment_video(small_model, source, **SETTINGS)
        np.testing.assert_array_equal(result.ids, expected.ids)
