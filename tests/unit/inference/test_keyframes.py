"""Keyframes against an exact motion, and the levels of speed of `VideoSegmenter`."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from entitysam.inference.keyframes import KeyframeModel
from entitysam.inference.segmenter import VideoSegmenter
from entitysam.registry import ConfigError
from entitysam.speed import EXACT, LEVELS, Speed
from entitysam.structures import FrameOutput

SIDE = 128


@dataclass(frozen=True)
class State:
    frames: int = 0


class ShowsTheLeftPart:
    """Counts its keyframes; its one mask is the left part of the frame, up to a column that is written into pixel (0, 0)."""

    device = torch.device("cpu")
    num_entities = 1

    def __init__(self):
        self.encoded = 0

    def initial_state(self):
        return State()

    def encode(self, images):
        self.encoded += len(images)
        return [SimpleNamespace(image=image) for image in images]

    def propagate(self, features, state):
        column = torch.arange(SIDE // 4)[None, None].expand(1, SIDE // 4, -1)
        edge = float(features.image[0, 0, 0]) * SIDE / 4
        masks = torch.where(column < edge, 8.0, -8.0)
        return FrameOutput(masks, torch.ones(1), torch.zeros(1, 2), torch.zeros(1, 2), torch.ones(1)), State(
            state.frames + 1
        )


def textured(shift: int, seed: int = 0) -> torch.Tensor:
    """[3, S, S] smooth noise, moved to the right by `shift` pixels; pixel (0, 0) says where column S/2 is now."""
    noise = torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(seed))
    image = torch.nn.functional.interpolate(noise, size=(SIDE, 3 * SIDE), mode="bicubic")[0]
    image = image[:, :, SIDE - shift : 2 * SIDE - shift].clone()
    image[:, 0, 0] = 0.5 + shift / SIDE
    return image


def run(model, images):
    state, outputs = model.initial_state(), []
    for image in images:
        output, state = model.propagate(model.encode(image[None])[0], state)
        outputs.append(output)
    return outputs


def test_masks_between_keyframes_follow_the_motion():
    network = ShowsTheLeftPart()
    outputs = run(KeyframeModel(network, Speed(keyframe=4)), [textured(4 * t) for t in range(6)])
    assert network.encoded == 2  # frames 0 and 4
    for t, output in enumerate(outputs):
        edge = (output.mask_logits[0, 8:-8] > 0).sum(1).float()  # columns of the mask, per row
        assert (edge - (SIDE / 8 + t)).abs().max() <= 0.5, t  # 4 pixels per frame are one cell


def test_a_cut_is_a_keyframe():
    network = ShowsTheLeftPart()
    images = [textured(0), textured(2), textured(0, seed=1), textured(2, seed=1)]
    run(KeyframeModel(network, Speed(keyframe=100)), images)
    assert network.encoded == 2


def test_warmup_passes_run_the_network():
    network = ShowsTheLeftPart()
    model = KeyframeModel(network, Speed(keyframe=4))
    features, state = model.encode(textured(0)[None])[0], model.initial_state()
    for _ in range(4):
        _, state = model.propagate(features, state)
    assert state.network == {"frames": 4}
    assert network.encoded == 1


@pytest.mark.parametrize("level", LEVELS)
def test_levels_on_a_small_network(small_model, small_video, level):
    settings = {"score_threshold": 0.0, "overlap_threshold": 0.1, "warmup_frames": 0}
    exact = VideoSegmenter(small_model, **settings).segment(small_video)
    fast = VideoSegmenter(small_model, fast=level, **settings).segment(small_video)
    assert small_model.speed == EXACT  # the network itself stays as it is
    assert fast.num_frames == len(small_video)
    first = [dict(zip(video.query_of_segment, video.frame_scores[:, 0])) for video in (exact, fast)]
    for query in first[0].keys() & first[1].keys():  # nothing is left out before there is a memory
        assert first[0][query] == pytest.approx(first[1][query], abs=1e-6)
    if level == 0:
        np.testing.assert_array_equal(fast.ids, exact.ids)


def test_no_such_level(small_model):
    with pytest.raises(ConfigError, match=r"inference\.fast: 0, 1, 2, 3, not 4"):
        VideoSegmenter(small_model, fast=4)
