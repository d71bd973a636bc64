"""The compiled network against the same network as it is: one graph each, a padded bank, the same maps."""

import numpy as np
import pytest
import torch

import entitysam
from entitysam.inference.compiled import CompiledModel
from entitysam.inference.keyframes import at_speed
from entitysam.inference.segmenter import VideoSegmenter
from entitysam.registry import ConfigError
from entitysam.speed import LEVELS

OPEN = {"score_threshold": 0.0, "overlap_threshold": 0.1}


class CountingBackend:
    """A backend of `torch.compile` that runs what Dynamo has traced, and counts its graphs."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return graph.forward


@pytest.fixture(autouse=True)
def forget():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def outputs_of(model, images):
    state, outputs = model.initial_state(), []
    with torch.inference_mode():
        for image in images:
            output, state = model.propagate(model.encode(image[None])[0], state)
            outputs.append(output)
    return outputs, state


@pytest.fixture(scope="module")
def images(small_model, small_video):
    return [small_model.prepare(frame) for frame in (small_video * 2)[:10]]


def test_three_graphs_for_a_bank_of_any_length(small_model, images):
    """`fullgraph` raises where a graph breaks; 10 frames fill the bank of 7 and drop memories."""
    backend = CountingBackend()
    actual, state = outputs_of(CompiledModel(small_model, backend), images)
    assert backend.graphs == 3
    expected, exact_state = outputs_of(small_model, images)
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one.mask_logits, other.mask_logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(one.score, other.score, atol=1e-5, rtol=1e-4)
    assert state.frames == 10
    assert state.filled is None
    assert [memory.shape for memory in state.memories] == [memory.shape for memory in exact_state.memories]


def test_a_level_with_dormant_entities_compiles_the_encoders(small_model, images):
    backend = CountingBackend()
    network = small_model.at_speed(LEVELS[1])
    actual, state = outputs_of(CompiledModel(network, backend), images[:3])
    assert backend.graphs == 1
    expected, _ = outputs_of(network, images[:3])
    torch.testing.assert_close(actual[-1].mask_logits, expected[-1].mask_logits, atol=1e-4, rtol=1e-4)
    assert state.idle is not None
    assert isinstance(at_speed(small_model, LEVELS[2], compile=True).model, CompiledModel)


@pytest.mark.slow
def test_a_network_without_memory(images):
    network = entitysam.build_model("tiny_scratch", image_size=64, num_entities=6, memory=None)
    actual, _ = outputs_of(CompiledModel(network, CountingBackend()), images[:3])
    expected, _ = outputs_of(network, images[:3])
    torch.testing.assert_close(actual[-1].mask_logits, expected[-1].mask_logits, atol=1e-4, rtol=1e-4)


def test_what_is_no_network():
    with pytest.raises(ConfigError, match=r"inference\.compile: only a network of PyTorch"):
        VideoSegmenter(SimpleExported(), compile=True)


class SimpleExported:
    """As an exported model: no module."""

    device = torch.device("cpu")


@pytest.mark.slow
def test_inductor_gives_the_same_maps(small_model, small_video):
    compiled = VideoSegmenter(small_model, compile=True, **OPEN).segment(small_video).to_segments()
    eager = VideoSegmenter(small_model, **OPEN).segment(small_video).to_segments()
    np.testing.assert_array_equal(compiled.ids, eager.ids)
    np.testing.assert_allclose(compiled.scores, eager.scores, atol=1e-4)
    assert len(np.unique(eager.ids)) > 2
