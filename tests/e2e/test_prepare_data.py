"""tools/prepare_data.py as a user runs it."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "prepare_data.py"


def run(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def run_here(monkeypatch, *arguments):
    """The same without a process of its own, for what ends before any work begins."""
    spec = importlib.util.spec_from_file_location("prepare_data", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", [str(TOOL), *map(str, arguments)])
    return module.main()


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


def test_check_passes_then_names_what_is_broken(synthetic, monkeypatch, capsys):
    assert run_here(monkeypatch, "check", "coco", "--root", synthetic, "--workers", 1) == 0
    assert "4 images checked, 0 problems" in capsys.readouterr().out
    (synthetic / "train2017/000000000002.jpg").write_bytes(b"")
    (synthetic / "panoptic_train2017/000000000001.png").unlink()
    result = run("check", "coco", "--root", synthetic, "--workers", 2)
    assert result.returncode == 1
    assert "train2017/000000000002.jpg: not an image that can be read" in result.stdout
    assert "panoptic_train2017/000000000001.png: no such file" in result.stdout
    assert "4 images checked, 2 problems" in result.stdout


def test_a_missing_data_set_is_one_clear_line(monkeypatch, capsys, tmp_path):
    assert run_here(monkeypatch, "check", "coco", "--root", tmp_path / "nowhere") == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "nowhere/train2017: no such folder. datasets/README.md" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("synthetic", "--size", "320"), "'320' is not WIDTHxHEIGHT"),
        (("synthetic", "--size", "8x8"), "sides of 16 or more"),
        (("synthetic", "--images", "-1"), "'-1' is below 0"),
        (("check", "cocoa"), "invalid choice: 'cocoa'"),
    ],
)
def test_bad_arguments(monkeypatch, capsys, arguments, message):
    with pytest.raises(SystemExit) as ended:
        run_here(monkeypatch, *arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_an_output_that_cannot_be_written(monkeypatch, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert run_here(monkeypatch, "synthetic", "--out", tmp_path / "file", "--images", 1, "--workers", 1) == 1
    assert capsys.readouterr().err.startswith("prepare_data: ")


@pytest.mark.parametrize("command", ["", "synthetic", "check", "proposals", "vipseg", "scalabel"])
def test_help_has_an_example_and_no_docstring(monkeypatch, capsys, command):
    with pytest.raises(SystemExit):
        run_here(monkeypatch, *filter(None, [command, "--help"]))
    text = capsys.readouterr().out
    assert f"python tools/prepare_data.py {command}" in text
    assert not any(word in text for word in ("Args:", "Returns:", "Raises:"))
