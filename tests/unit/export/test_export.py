"""Exported graphs: parity with PyTorch over a video, the NumPy example, damaged folders."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import entitysam
from entitysam.engine.build import open_model
from entitysam.errors import CheckpointError, ConfigError
from entitysam.export.runtime import OnnxModel
from entitysam.export.storage import store_weights
from entitysam.export.writer import export
from entitysam.hub import sha256_of
from entitysam.inference.segmenter import VideoSegmenter
from entitysam.io.files import OutputError

OPEN = {"score_threshold": 0.0, "overlap_threshold": 0.1}


@pytest.fixture(scope="module")
def exported(small_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "small"
    small_model.ids = "tracks"
    try:
        export(small_model, folder, "onnx", {"weights": "seeded"})
    finally:
        small_model.ids = "queries"
    return folder


def test_every_graph_equals_pytorch(exported):
    manifest = json.loads((exported / "manifest.json").read_text())
    assert set(manifest["graphs"]) == set(manifest["parity"]) == {"encode", "first", "memorize", "propagate"}
    for differences in manifest["parity"].values():
        assert max(differences.values()) < 1e-4
    assert manifest["graphs"]["propagate"]["outputs"][0] == {
        "name": "mask_logits", "shape": [6, 16, 16], "dtype": "float32"
    }  # fmt: skip


def test_a_video_has_the_same_maps(exported, small_model, small_video):
    """8 frames and 3 warm-up passes: the bank of the exported model fills up and drops memories. Its ids are those of the model."""
    opened = open_model(str(exported))
    expected = VideoSegmenter(small_model, ids="tracks", **OPEN).segment(small_video).to_segments()
    actual = VideoSegmenter(opened.model, **OPEN).segment(small_video).to_segments()
    np.testing.assert_array_equal(actual.ids, expected.ids)
    np.testing.assert_allclose(actual.scores, expected.scores, atol=1e-4)
    assert len(np.unique(actual.ids)) > 2


@pytest.mark.parametrize(("storage", "allowed"), [("fp16", 0.005), ("int8", 0.1)])
def test_stored_weights(exported, small_model, small_video, tmp_path, storage, allowed):
    """Graphs with smaller weights are smaller and give nearly the same masks; the bank keeps the differences."""
    folder = rewritten(exported, tmp_path / "small", storage)
    sizes = [sum(file.stat().st_size for file in path.glob("*.onnx")) for path in (exported, folder)]
    assert sizes[1] < 0.8 * sizes[0]
    assert masks_deviate(OnnxModel(folder), small_model, small_video) < allowed


def test_openvino(exported, small_model, small_video):
    """Products in float32, and no resized position table in its graphs: both changed masks."""
    pytest.importorskip("openvino")
    assert masks_deviate(OnnxModel(exported, "openvino"), small_model, small_video) < 1e-4


def test_what_depends_on_weights_alone_is_no_node(exported):
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(exported / "encode.onnx").graph
    constants = {tensor.name for tensor in graph.initializer}
    assert not [node.name for node in graph.node if node.op_type == "Resize" and node.input[0] in constants]
    sizes = {node.op_type for node in graph.node if set(filter(None, node.input)) <= constants}
    assert sizes <= {"Constant", "ConstantOfShape"}, sizes  # the second: zeros of the windows' bias, a few cells


def rewritten(exported, folder, storage):
    """A copy of an exported model with its weights stored otherwise."""
    shutil.copytree(exported, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    for graph in manifest["graphs"].values():
        store_weights(folder / graph["file"], storage)
        graph["sha256"] = sha256_of(folder / graph["file"])
    (folder / "manifest.json").write_text(json.dumps({**manifest, "storage": storage}))
    return folder


def masks_deviate(model, network, video):
    """Relative difference of the mask logits of 5 frames from those of the network."""
    states, worst = [model.initial_state(), network.initial_state()], 0.0
    with torch.inference_mode():
        for frame in video[:5]:
            image = network.prepare(frame)[None]
            found, states[0] = model.propagate(model.encode(image)[0], states[0])
            expected, states[1] = network.propagate(network.encode(image)[0], states[1])
            difference = found.mask_logits - expected.mask_logits
            worst = max(worst, float(difference.norm() / expected.mask_logits.norm()))
    return worst


def test_example_needs_onnxruntime_and_numpy_alone(exported, small_model, small_video, tmp_path):
    frames = np.stack([np.resize(frame, (64, 64, 3)) for frame in small_video[:5]])
    np.save(tmp_path / "frames.npy", frames)
    blocked = "import sys; sys.modules.update(torch=None, entitysam=None, PIL=None); sys.argv = sys.argv[1:]; "
    code = blocked + "import runpy; runpy.run_path(sys.argv[0], run_name='__main__')"
    paths = [exported / "example.py", exported, tmp_path / "frames.npy", tmp_path / "masks.npy"]
    subprocess.run([sys.executable, "-c", code, *map(str, paths)], check=True)
    masks, state = np.load(tmp_path / "masks.npy"), small_model.initial_state()
    with torch.inference_mode():
        for frame, mask in zip(frames, masks, strict=True):
            output, state = small_model.step(frame, state)
            seen = (output.mask_logits > 0) & (output.score >= 0.05)[:, None, None]
            assert (torch.from_numpy(mask) ^ seen).float().mean() < 1e-3
    assert masks.any()


@pytest.mark.slow
def test_programs_of_pytorch(small_model, tmp_path):
    """`--to torch`: the files give the outputs of the network, and nothing but the folder is left behind."""
    manifest = export(small_model, tmp_path / "programs", "torch", {"weights": "seeded"})
    assert max(value for differences in manifest.parity.values() for value in differences.values()) < 1e-4
    assert [path.name for path in tmp_path.iterdir()] == ["programs"]
    files = sorted(path.name for path in (tmp_path / "programs").iterdir())
    assert files == ["encode.pt2", "first.pt2", "manifest.json", "memorize.pt2", "propagate.pt2"]
    encode = torch.export.load(tmp_path / "programs" / "encode.pt2").module()
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(encode(image)[2], small_model.encode(image)[0].cells, atol=1e-5, rtol=1e-5)
    with pytest.raises(ConfigError, match="exported as 'torch', which onnxruntime cannot run"):
        OnnxModel(tmp_path / "programs")


def test_damaged_folders(exported, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(exported, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    content = (folder / "first.onnx").read_bytes()
    (folder / "first.onnx").write_bytes(content + b"x")
    with pytest.raises(CheckpointError, match=r"first\.onnx: not the file that was exported"):
        OnnxModel(folder)
    (folder / "first.onnx").unlink()
    with pytest.raises(CheckpointError, match=r"first\.onnx: missing"):
        OnnxModel(folder)
    manifest["graphs"]["first"]["file"] = "../first.onnx"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"manifest\.json.*\.\./first\.onnx"):
        OnnxModel(folder)


def test_refusals(exported, small_model, tmp_path):
    with pytest.raises(ConfigError, match="device 'tensorrt': this onnxruntime has cpu"):
        OnnxModel(exported, "tensorrt")
    with pytest.raises(ConfigError, match="cannot be changed"):
        open_model(str(exported), overrides={"image_size": 128})
    with pytest.raises(ConfigError, match="no levels of speed"):
        VideoSegmenter(OnnxModel(exported), fast=1)
    with pytest.raises(ConfigError, match=r"inference\.compile: only a network of PyTorch"):
        VideoSegmenter(OnnxModel(exported), compile=True)
    with pytest.raises(ConfigError, match="of torch in fp32, not 'int8'"):
        export(small_model, tmp_path / "new", "torch", {}, "int8")
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(OutputError, match="holds files already"):
        export(small_model, tmp_path, "onnx", {})
    assert [path.name for path in Path(tmp_path).iterdir()] == ["mine.txt"]
    network = entitysam.build_model("tiny_scratch", image_size=64, num_entities=6, memory=None)
    with pytest.raises(ConfigError, match="no memory"):
        export(network, tmp_path / "new", "onnx", {})
