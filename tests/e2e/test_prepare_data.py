"""tools/prepare_data.py as a user runs it."""

import os
import subprocess
import sys
from pathlib import Path

import prepare_data
import pytest
from support.processes import run_here

TOOL = Path(__file__).resolve().parents[2] / "tools" / "prepare_data.py"


def run(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


@pytest.fixture
def prepare(monkeypatch, capsys):
    """The command inside this process."""
    return lambda *arguments: run_here(monkeypatch, capsys, prepare_data.main, *arguments)


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "synthetic"
    counts = ("--images", 4, "--val-images", 0, "--train-videos", 1, "--train-frames", 2, "--videos", 1, "--frames", 3)
    result = run("synthetic", "--out", out, *counts, "--size", "80x48", "--workers", 2)
    assert result.returncode == 0, result.stderr
    assert "6 images and videos" in result.stdout
    return out


def test_synthetic_writes_the_layouts_of_the_real_sets(synthetic):
    assert len(list((synthetic / "train2017").glob("*.jpg"))) == 4
    assert len(list((synthetic / "panoptic_train2017").glob("*.png"))) == 4
    assert len(list((synthetic / "VIPSeg_720P/images/val_00000").glob("*.jpg"))) == 3
    assert len(list((synthetic / "VIPSeg_720P/panomasksRGB/train_00000").glob("*.png"))) == 2
    assert (synthetic / "annotations/panoptic_train2017.json").is_file()
    assert (synthetic / "VIPSeg_720P/panoptic_gt_VIPSeg_val.json").is_file()


def test_check_passes_then_names_what_is_broken(synthetic, prepare):
    done = prepare("check", "coco", "--root", synthetic, "--workers", 1)
    assert done.returncode == 0
    assert "4 images checked, 0 problems" in done.stdout
    (synthetic / "train2017/000000000002.jpg").write_bytes(b"")
    (synthetic / "panoptic_train2017/000000000001.png").unlink()
    done = prepare("check", "coco", "--root", synthetic, "--workers", 2)
    assert done.returncode == 1
    assert "train2017/000000000002.jpg: not an image that can be read" in done.stdout
    assert "panoptic_train2017/000000000001.png: no such file" in done.stdout
    assert "4 images checked, 2 problems" in done.stdout


def test_a_missing_data_set_is_one_clear_line(prepare, tmp_path):
    done = prepare("check", "coco", "--root", tmp_path / "nowhere")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "nowhere/train2017: no such folder. datasets/README.md" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("synthetic", "--size", "320"), "'320' is not WIDTHxHEIGHT"),
        (("synthetic", "--size", "8x8"), "sides of 16 or more"),
        (("synthetic", "--images", "-1"), "'-1' is below 0"),
        (("check", "cocoa"), "invalid choice: 'cocoa'"),
    ],
)
def test_bad_arguments(prepare, arguments, message):
    done = prepare(*arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_an_output_that_cannot_be_written(prepare, tmp_path):
    (tmp_path / "file").write_text("")
    done = prepare("synthetic", "--out", tmp_path / "file", "--images", 1, "--workers", 1)
    assert done.returncode == 1
    assert done.stderr.startswith("prepare_data: ")


@pytest.mark.parametrize("command", ["", "synthetic", "check", "proposals", "vipseg", "scalabel"])
def test_help_has_an_example_and_no_docstring(prepare, command):
    text = prepare(*filter(None, [command, "--help"])).stdout
    assert f"python tools/prepare_data.py {command}" in text
    assert not any(word in text for word in ("Args:", "Returns:", "Raises:"))
