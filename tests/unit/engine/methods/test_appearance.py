"""Appearance by MASA: the embeddings of the boxes of masks; and the segmenter of a config."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from entitysam.engine.methods.appearance import MasaAppearance, build_segmenter
from entitysam.engine.methods.masa import open_masa
from entitysam.errors import ConfigError
from entitysam.inference.identity import no_appearance, token_appearance
from entitysam.inference.segmenter import VideoSegmenter


@pytest.fixture(scope="module")
def masa():
    return open_masa("random")


@pytest.fixture
def frame():
    return np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)


@torch.inference_mode()
def test_embeddings_are_those_of_the_boxes_of_the_masks(masa, frame):
    logits = torch.full((3, 16, 16), -1.0)
    logits[0, 4:8, 2:9] = 1  # rows 24..48, columns 16..72 of the frame
    logits[2, 15, 15] = 1
    found = MasaAppearance(masa)(frame, None, logits)
    features = masa.encode(torch.from_numpy(frame).permute(2, 0, 1).float())
    expected = masa.embed(features, torch.tensor([[16.0, 24, 72, 48], [120, 90, 128, 96]]))
    torch.testing.assert_close(found[[0, 2]], F.normalize(expected, dim=1))
    assert not found[1].any()


def test_a_frame_without_masks_has_no_appearance_and_features_are_shared(masa, frame):
    appearance, seen = MasaAppearance(masa), []
    encode = masa.encode
    masa.encode = lambda image: (seen.append(1), encode(image))[1]
    try:
        for _ in range(3):
            assert not appearance(frame, None, torch.full((2, 16, 16), -1.0)).any()
        appearance(frame.copy(), None, torch.full((2, 16, 16), -1.0))
    finally:
        del masa.encode
    assert len(seen) == 2


def test_the_config_names_the_appearance(small_model, small_video):
    for name, expected in (("tokens", token_appearance), ("none", no_appearance)):
        assert build_segmenter(small_model, {"appearance": name}).appearance is expected
    segmenter = build_segmenter(small_model, {"appearance": "masa_tiny", "score_threshold": 0.0})
    assert isinstance(segmenter.appearance, MasaAppearance)
    assert len(list(segmenter.stream(small_video[:2]))) == 2
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        build_segmenter(small_model, {"appearance": "none.pth"})
    with pytest.raises(ConfigError, match="appearance: one of tokens, none or a function, not 'nothing'"):
        VideoSegmenter(small_model, appearance="nothing")
