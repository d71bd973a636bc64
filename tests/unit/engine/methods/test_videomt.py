"""VidEoMT frame by frame equals the clip of `transformers`; its files are checked."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from entitysam.engine.methods.build import build_method, method_node
from entitysam.engine.methods.context import MethodContext
from entitysam.engine.methods.videomt import VidEoMT, open_network
from entitysam.errors import CheckpointError
from entitysam.registry import ConfigError

transformers = pytest.importorskip("transformers", reason="the extra 'videomt' is not installed")

SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 64, "patch_size": 16,
         "num_blocks": 2, "num_queries": 5, "num_upscale_blocks": 2, "num_labels": 3, "mlp_ratio": 2}  # fmt: skip


@pytest.fixture(scope="module")
def network():
    found = open_network("random", SMALL, seed=3)
    with torch.no_grad():
        found.query.weight.mul_(40)  # different masks
    return found


@torch.no_grad()
def test_frame_by_frame_is_the_clip(network, small_video):
    model = VidEoMT(network)
    images = torch.stack([model.prepare(frame) for frame in small_video])
    whole = network(pixel_values_videos=images[None])
    state = model.initial_state()
    for index, image in enumerate(images):
        output, state = model.propagate(model.encode(image[None])[0], state)
        torch.testing.assert_close(output.mask_logits, whole.masks_queries_logits[index], rtol=1e-5, atol=1e-5)
        probability = whole.class_queries_logits[index].softmax(-1)
        torch.testing.assert_close(output.score, probability[:, :3].max(-1).values, rtol=1e-5, atol=1e-6)
    assert output.mask_logits.std() > 1e-3


def test_frames_are_prepared_as_by_its_processor(network, small_video):
    processor = transformers.VideomtVideoProcessor(size={"height": 64, "width": 64})
    video = torch.from_numpy(np.stack(small_video)).permute(0, 3, 1, 2)
    expected = processor(video, return_tensors="pt")["pixel_values_videos"][0]
    found = torch.stack([VidEoMT(network).prepare(frame) for frame in small_video])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_the_method_segments_a_video_from_a_folder(network, small_video, tmp_path):
    network.save_pretrained(tmp_path / "release")
    node = method_node(
        f"videomt:weights={tmp_path / 'release'},inference.score_threshold=0,inference.overlap_threshold=0"
    )
    found = build_method(node, MethodContext()).segment(small_video, (40, 60))
    maps = np.stack(list(found.iter_ids()))
    assert maps.shape == (len(small_video), 40, 60)
    assert len(np.unique(maps)) > 2
    assert len(found.scores) == maps.max()


def test_files_that_cannot_be_used(network, tmp_path, monkeypatch):
    context = MethodContext()
    with pytest.raises(CheckpointError, match=r"none: no config.json; a release of VidEoMT"):
        build_method(method_node(f"videomt:weights={tmp_path / 'none'}"), context)
    network.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(CheckpointError, match="not weights of VidEoMT"):
        build_method(method_node(f"videomt:weights={tmp_path}"), context)
    tensors = {name: value for name, value in network.state_dict().items() if name != "query_updater.bias"}
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"query_updater\.bias is missing"):
        build_method(method_node(f"videomt:weights={tmp_path}"), context)
    with pytest.raises(ConfigError, match=r"method\.config"):
        build_method({"name": "videomt", "weights": "random", "config": {"hidden_size": "wide"}}, context)
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"pip install 'entitysam\[videomt\]'"):
        build_method(method_node("videomt"), context)
