"""Several methods side by side: the rows, the run with a method that lacks its weights, the table, and a resumed run."""

import csv

import numpy as np
import pytest
from PIL import Image

from entitysam.config import load_config, to_dict
from entitysam.data.synthetic.writer import SyntheticSet, write_synthetic
from entitysam.engine.evaluate.methods import compare_methods, method_rows
from entitysam.engine.evaluate.report.methods_table import Row, most_different, to_csv, to_markdown
from entitysam.engine.evaluate.report.result import EvaluationResult, VideoResult, read_result
from entitysam.engine.evaluate.run import RunOptions
from entitysam.registry import ConfigError

NODES = [
    {"label": "cells", "method": "grid:cells=3", "paper": {"VEQ": 12.0}},
    {"label": "one: all", "method": "whole_frame"},
    {"label": "SAM 2.1", "method": "sam2_everything", "paper": {"VEQ": 26.9}},
    {"label": "others", "paper": {"VEQ": 41.5}},
]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A comparison on three synthetic videos: its config and folder."""
    data, out = tmp_path_factory.mktemp("videos"), tmp_path_factory.mktemp("out")
    nothing = {"train_images": 0, "val_images": 0, "train_videos": 0}
    write_synthetic(data, SyntheticSet(**nothing, val_videos=3, val_frames=4, video_size=(48, 80)))
    windows = "evaluation.evaluators=[{name: veq, windows: [1, 2]}, {name: stq_en}]"
    config = load_config(
        "eval/vipseg", [f"evaluation.dataset.root={data / 'VIPSeg_720P'}", f"output_dir={out}", windows]
    )
    options = RunOptions(device="cpu", quiet=True, worst=2)
    assert not compare_methods(to_dict(config), options, method_rows(NODES))  # SAM 2.1 has no weights
    return to_dict(config), out


def test_the_table_has_a_row_per_method(compared):
    _, out = compared
    table = (out / "comparison.md").read_text().splitlines()
    header = next(line for line in table if line.startswith("| | VEQ"))
    assert [cell.strip() for cell in header.split("|")[2:-1]][-3:] == ["paper: VEQ", "frames/s", "MiB"]
    rows = {
        line.split("|")[1].strip(): [c.strip() for c in line.split("|")[2:-1]] for line in table if line.startswith("|")
    }
    cells, whole = (read_result(out / name) for name in ("cells", "one_ all"))
    low, high = (float(side) for side in rows["cells"][0].split("[")[1].rstrip("]").split(","))
    assert low <= round(cells.metrics["VEQ"], 1) <= high
    assert rows["cells"][0].startswith(f"{cells.metrics['VEQ']:.1f} [")
    assert rows["cells"][-3] == "12.0"
    assert float(rows["cells"][-2]) > 0
    assert float(rows["cells"][-1]) > 50
    assert rows["SAM 2.1"][0] == "–"
    assert rows["others"][-3] == "41.5"
    assert rows["one: all"][0].startswith("+") == (whole.metrics["VEQ"] > cells.metrics["VEQ"])  # of the differences
    missing = next(line for line in table if line.startswith("- not run: SAM 2.1"))
    assert "sam2.1_hiera_small.pt" in missing
    assert "- not run: others: no method here" in table


def test_csv_plot_and_contact_sheet(compared):
    _, out = compared
    rows = {row["method"]: row for row in csv.DictReader((out / "comparison.csv").open())}
    assert float(rows["cells"]["VEQ"]) == read_result(out / "cells").metrics["VEQ"]
    assert float(rows["cells"]["VEQ low"]) <= float(rows["cells"]["VEQ"]) <= float(rows["cells"]["VEQ high"])
    assert rows["SAM 2.1"]["VEQ"] == ""
    assert float(rows["SAM 2.1"]["paper VEQ"]) == 26.9
    for name in ("comparison.png", "differences.png"):
        assert Image.open(out / name).size[0] > 300


def test_a_resumed_comparison_predicts_nothing_again(compared):
    config, out = compared
    files = sorted(out.glob("*/pan_pred/*/*.png"))
    assert len(files) == 2 * 3 * 4
    before, table = [file.stat().st_mtime_ns for file in files], (out / "comparison.md").read_text()
    compare_methods(config, RunOptions(device="cpu", quiet=True, worst=0, resume=True), method_rows(NODES))
    assert [file.stat().st_mtime_ns for file in files] == before
    assert (out / "comparison.md").read_text() == table  # speed and memory are those of the first run


def test_rows_are_checked():
    with pytest.raises(ConfigError, match=r"evaluation\.methods\[0\]\.methd: unknown key"):
        method_rows([{"methd": "grid"}])
    with pytest.raises(ConfigError, match=r"evaluation\.methods\[1\]: needs a method or a label"):
        method_rows([{"method": "grid"}, {"paper": {"VEQ": 1.0}}])
    with pytest.raises(ConfigError, match="two rows are called 'grid'"):
        method_rows([{"method": "grid"}, {"method": "grid:cells=2", "label": "Grid"}])


@pytest.mark.parametrize("name", ["table2", "compare_synthetic", "compare_long", "compare_davis", "compare_camvid"])
def test_shipped_comparisons_compose(name):
    config = to_dict(load_config(f"eval/{name}"))
    rows = method_rows(config["evaluation"]["methods"])
    assert len(rows) >= 6
    assert config["evaluation"]["dataset"]["name"]


def result_of(values, samples):
    videos = {f"v{n}": VideoResult(8, 2.0, {"VEQ": value}, memory=100.0 + n) for n, value in enumerate(values)}
    result = EvaluationResult("set", metrics={"VEQ": float(np.mean(values)), "VEQ@1": 1.0}, videos=videos)
    result.samples = {"VEQ": np.array(samples)}
    return result


def test_numbers_of_the_table_by_hand():
    rows = [
        Row("a", {}, result_of([10.0, 30.0], np.linspace(10, 30, 201))),
        Row("b", {"VEQ": 5.0}, result_of([20.0, 22.0], np.linspace(20, 22, 201))),
    ]
    text = to_markdown(rows, "set")
    assert "| a | 20.0 [10.5, 29.5] | – | 4.00 | 101 |" in text
    assert "| b | 21.0 [20.1, 21.9] | 5.0 | 4.00 | 101 |" in text
    assert "| b | +1.0 [-7.6, +9.6] |" in text  # of pairs that differ by 10 .. -8
    assert to_csv(rows).splitlines()[0].startswith("method,problem,videos,frames_per_second,peak_mib,VEQ,VEQ@1,VEQ low")
    assert most_different(rows, 5) == ["v0", "v1"]  # ranges 10 and 8
    one = Row("one", {}, result_of([10.0], [10.0] * 3))
    assert "| one | 10.0 | 4.00 | 100 |" in to_markdown([one], "set")  # no interval from one video
