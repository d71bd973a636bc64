"""The report of an evaluation, its comparison and its plots, on hand-made numbers."""

import json
import math

import numpy as np
import pytest

from entitysam.engine.evaluate.report.compare import compare, differences
from entitysam.engine.evaluate.report.plots import comparison_figure, save, scatter_figure, window_figure
from entitysam.engine.evaluate.report.result import (
    EvaluationResult,
    Failure,
    VideoResult,
    read_result,
    to_csv,
    to_markdown,
    write_report,
)
from entitysam.engine.evaluate.report.worst_videos import in_same_colours
from entitysam.engine.formats.instances import paint
from entitysam.evaluation import Instance
from entitysam.ops import rle_encode

NAN = math.nan


def result(values=(50.0, 20.0, NAN), **changes):
    videos = {f"v{n}": VideoResult(4 + n, 1.5, {"VEQ": value}) for n, value in enumerate(values)}
    metrics = {"VEQ": 35.0, "AP": NAN, "VEQ@1": 40.0, "VEQ@8": 30.0}
    return EvaluationResult("toys val", metrics, videos, **changes)


def test_a_result_survives_its_file(tmp_path):
    written = result(failures=[Failure("v9", "stq", "no")], warnings={"odd": 3}, seconds=2.0, run={"weights": "w.pt"})
    write_report(written, tmp_path / "out", {})
    for path in (tmp_path / "out", tmp_path / "out" / "result.json"):
        np.testing.assert_equal(vars(read_result(path)).keys(), vars(written).keys())
        np.testing.assert_equal(read_result(path).metrics, written.metrics)
        np.testing.assert_equal(read_result(path).videos["v2"].metrics, {"VEQ": NAN})
        assert read_result(path).failures == written.failures
    strict = json.loads((tmp_path / "out/result.json").read_text(), parse_constant=lambda text: pytest.fail(text))
    assert strict["metrics"]["AP"] is None


def test_the_table_has_the_rows_of_the_paper():
    text = to_markdown(result(), {"paper": {"VEQ": 51.8}, "other": {"PQ": 1.0}})
    assert "3 videos, 15 frames" in text
    assert "| | VEQ | AP |" in text
    assert "| this run | 35.00 | – |" in text
    assert "| paper | 51.80 |  |" in text
    assert "other" not in text
    assert "| this run | 40.00 | 30.00 |" in text
    text = to_markdown(result(failures=[Failure("v9", "stq", "frame 3 is gone")], warnings={"odd ids": 7}), {})
    assert "- frame 3 is gone (video v9, stq)" in text
    assert "- 7 x odd ids" in text


def test_videos_worst_first():
    assert result().worst_first() == ["v1", "v0", "v2"]
    assert to_csv(result()).splitlines() == ["video,frames,seconds,VEQ", "v1,5,1.5,20.0", "v0,4,1.5,50.0", "v2,6,1.5,"]


def test_compare_lists_the_largest_loss_first(tmp_path):
    write_report(result((50.0, 20.0, 80.0)), tmp_path / "a", {})
    write_report(result((60.0, 5.0, 80.0, 1.0)), tmp_path / "b", {})
    a, b = read_result(tmp_path / "a"), read_result(tmp_path / "b")
    assert differences(a, b) == [("v1", 20.0, 5.0), ("v2", 80.0, 80.0), ("v0", 50.0, 60.0)]
    text = compare(tmp_path / "a", tmp_path / "b", most=2)
    assert "| v1 | 20.00 | 5.00 | -15.00 |" in text
    assert "| v0 |" not in text
    assert "1 more videos; 1 videos are in one of the two results only." in text
    save(comparison_figure(a, b, ("a", "b")), tmp_path / "compared.png")
    assert (tmp_path / "compared.png").stat().st_size > 1000


def test_files_that_are_no_results_raise(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such result file"):
        compare(tmp_path / "a", tmp_path / "b")
    (tmp_path / "result.json").write_text('{"title": 3}')
    with pytest.raises(ValueError, match=r"result.json: not a result of an evaluation"):
        read_result(tmp_path)
    for odd in ("5", "null", "[" * 100_000, '{"title": "x", "metrics": {"VEQ": [1]}}'):
        (tmp_path / "result.json").write_text(odd)
        with pytest.raises(ValueError, match=r"result\.json: (not a result of an evaluation|broken JSON)"):
            read_result(tmp_path)


def test_results_without_notes_are_still_read(tmp_path):
    write_report(result(notes=["VEQ: short"]), tmp_path, {})
    assert read_result(tmp_path).notes == ["VEQ: short"]
    assert "VEQ: short" in (tmp_path / "result.md").read_text()
    contents = json.loads((tmp_path / "result.json").read_text())
    del contents["notes"]
    (tmp_path / "result.json").write_text(json.dumps(contents))
    assert read_result(tmp_path).notes == []


def test_instances_of_another_size_are_painted():
    half = Instance(1, [rle_encode(np.eye(2, dtype=bool))])
    assert paint([half], 0, (4, 4)).tolist() == np.kron(np.eye(2, dtype=int), np.ones((2, 2), int)).tolist()


def test_windows_longer_than_every_video_are_not_drawn():
    axes = window_figure({"this run": result().metrics, "paper": {"VEQ": 3.0}}, longest=6).axes[0]
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[1.0, 40.0]]]
    axes = window_figure({"this run": result().metrics}, longest=8).axes[0]
    assert axes.lines[0].get_xydata().tolist() == [[1.0, 40.0], [8.0, 30.0]]


def test_scatter_shows_the_videos_with_a_metric():
    axes = scatter_figure(result()).axes[0]
    assert sorted(axes.collections[0].get_offsets().tolist()) == [[4.0, 50.0], [5.0, 20.0]]


def test_overlapping_entities_get_one_colour():
    truth = np.array([[[7, 7, 7, 900000, 0]]])
    predicted = np.array([[[2, 2, 1, 1, 3]]])
    same_truth, same_predicted = in_same_colours(truth, predicted)
    assert same_truth.tolist() == [[[1, 1, 1, 2, 0]]]
    assert same_predicted.tolist() == [[[1, 1, 2, 2, 3]]]
    nothing = np.zeros((1, 2, 2), int)
    assert in_same_colours(nothing, nothing)[1].tolist() == nothing.tolist()
