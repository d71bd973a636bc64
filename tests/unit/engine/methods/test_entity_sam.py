"""Settings of EntitySAM as a method; without memory: the links between frames are the best of all permutations."""

from itertools import permutations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from entitysam.engine.methods.build import build_method, method_node
from entitysam.engine.methods.context import MethodContext
from entitysam.engine.methods.entity_sam import LastQueries, WithoutMemory, match_queries
from entitysam.inference.keyframes import KeyframeModel
from entitysam.inference.segmenter import VideoSegmenter
from entitysam.registry import ConfigError


def test_matching_is_the_best_of_all_permutations():
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        before, now = torch.randn(2, 6, 8, generator=generator)
        similarity = F.normalize(before, dim=1) @ F.normalize(now, dim=1).T
        best = max(sum(similarity[i, j] for i, j in enumerate(order)) for order in permutations(range(6)))
        found = match_queries(before, now)
        assert sorted(found.tolist()) == list(range(6))
        torch.testing.assert_close(similarity[torch.arange(6), found].sum(), best)
        shuffled = torch.randperm(6, generator=generator)
        assert match_queries(before, 3 * before[shuffled])[shuffled.argsort()].tolist() != []
        torch.testing.assert_close((3 * before[shuffled])[match_queries(before, 3 * before[shuffled])], 3 * before)


def test_every_frame_is_a_first_frame_in_the_order_of_the_tracks(small_model, small_video):
    linked, state = WithoutMemory(small_model), LastQueries()
    with torch.no_grad():
        for number, frame in enumerate(small_video[:4]):
            features = small_model.encode(small_model.prepare(frame)[None])[0]
            alone, _ = small_model.propagate(features, small_model.initial_state(), remember=False)
            if number:
                order = match_queries(state.embeddings, alone.embeddings)
            else:
                order = torch.arange(6)
            output, state = linked.propagate(features, state)
            for name in ("mask_logits", "score", "entity_logits", "embeddings"):
                torch.testing.assert_close(getattr(output, name), getattr(alone, name)[order])


def test_a_still_video_keeps_every_id(small_model, small_video):
    segmenter = VideoSegmenter(WithoutMemory(small_model), warmup_frames=0, score_threshold=0.0)
    ids = segmenter.segment([small_video[0]] * 3).ids
    assert len(np.unique(ids)) > 1
    np.testing.assert_array_equal(ids[1], ids[0])
    np.testing.assert_array_equal(ids[2], ids[0])


def test_settings_of_the_method_win_over_those_of_the_run():
    context = MethodContext(weights="random", inference={"fast": 0, "warmup_frames": 2})
    method = build_method(method_node("entitysam:model=tiny_scratch,weights=random,inference.fast=2"), context)
    assert isinstance(method.model, KeyframeModel)
    assert method.warmup_frames == 2
    with pytest.raises(ConfigError, match=r"method\.inference\.speed: unknown key"):
        build_method(method_node("entitysam:model=tiny_scratch,weights=random,inference.speed=2"), context)
