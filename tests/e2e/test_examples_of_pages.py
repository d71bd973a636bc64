"""The Python code of the pages: the three parts of docs/EXTEND.md work, and the other blocks run or compile."""

from pathlib import Path

import numpy as np
import pytest
from support.page_commands import blocks, pages

from entitysam.engine.methods.build import build_method, method_node
from entitysam.evaluation import PanopticSequence, PanopticVideo, build_evaluators
from entitysam.inference.segmenter import VideoSegmenter
from entitysam.io.readers.base import InputError
from entitysam.io.readers.source import FrameSource
from entitysam.registry import EVALUATORS, METHODS

PYTHON = [(page, block) for page in pages() for block in blocks(page) if block.language == "python"]


@pytest.fixture(scope="module")
def extended():
    """The names that the blocks of docs/EXTEND.md define; their registrations are taken back."""
    names = {"__name__": "extended"}
    for page, block in PYTHON:
        if page.name == "EXTEND.md":
            exec(compile(block.text(), f"{block.page}:{block.line}", "exec"), names)
    yield names
    EVALUATORS._obj_map.pop("coverage")
    METHODS._obj_map.pop("brightness")


def test_the_metric(extended):
    truth = np.array([[[1, 1, 2, 0]], [[1, 1, 2, 2]]], np.int32)
    predicted = np.array([[[5, 0, 6, 6]], [[5, 5, 0, 0]]], np.int32)
    sequences = [PanopticSequence([[], []], maps.__getitem__) for maps in (truth, predicted)]
    evaluator = build_evaluators([{"name": "coverage"}])["coverage"]
    assert np.isnan(evaluator.compute()["coverage"])
    evaluator.update(PanopticVideo("v", *sequences))
    assert evaluator.percent(evaluator.compute()) == {"coverage": pytest.approx(100 * 4 / 7)}


def test_the_method(extended, small_video):
    method = build_method(method_node("brightness:levels=4"), None)
    segmented = method.segment(iter(small_video), (24, 40))
    maps = list(segmented.iter_ids())
    assert {ids.shape for ids in maps} == {(24, 40)}
    assert set(np.unique(maps)) <= {1, 2, 3, 4}
    assert len(segmented.scores) == np.max(maps)


def test_the_reader(extended, small_model, small_video, tmp_path):
    np.save(tmp_path / "clip.npy", np.stack(small_video))
    decoder = extended["NumpyDecoder"](tmp_path / "clip.npy", fps=8.0)
    with FrameSource(decoder, stride=2) as frames:
        read = list(frames)
        np.testing.assert_array_equal(read, small_video[::2])
        assert (frames.name(1), frames.time(1)) == ("00002", 0.25)
        assert VideoSegmenter(small_model).segment(frames).ids.shape == (4, 48, 80)
    np.save(tmp_path / "wrong.npy", np.zeros((3, 4), np.uint8))
    with pytest.raises(InputError, match="must be uint8"):
        extended["NumpyDecoder"](tmp_path / "wrong.npy")


@pytest.mark.parametrize(("page", "block"), PYTHON, ids=[f"{block.page}:{block.line}" for _, block in PYTHON])
def test_code_compiles_and_what_it_imports_is_there(page: Path, block):
    code = block.text()
    compile(code, block.page, "exec")
    imports = [line for line in code.splitlines() if line.startswith(("import ", "from "))]
    if "detectron2" not in code:
        exec("\n".join(imports), {})
