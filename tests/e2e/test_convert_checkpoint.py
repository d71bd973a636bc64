"""tools/convert_checkpoint.py: conversion in both directions, and refused files."""

import subprocess
import sys
from pathlib import Path

import convert_checkpoint
import pytest
import torch
from golden.seeded_weights import seeded_state_dict
from support.processes import run_here

import entitysam
from entitysam.checkpoint import read_weights, to_published
from entitysam.engine.build import model_config

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tensors():
    """A whole tiny model, in our names."""
    shapes = {name: value.shape for name, value in entitysam.build_model("tiny_scratch").state_dict().items()}
    return seeded_state_dict(shapes, seed=4)


@pytest.fixture
def convert(tmp_path, monkeypatch, capsys):
    """The command in `tmp_path`, inside this process."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: run_here(monkeypatch, capsys, convert_checkpoint.main, *arguments)


def assert_refused(done, *parts):
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    for part in parts:
        assert part in line


def assert_same(state, expected):
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], value) for name, value in expected.items())


def test_conversion_in_both_directions(tmp_path, tensors, convert):
    config = {"model": model_config("tiny_scratch", num_entities=24)}
    torch.save({"model": tensors, "config": config, "iteration": 3}, tmp_path / "run.pt")
    command = [sys.executable, ROOT / "tools" / "convert_checkpoint.py", "run.pt", "-o", "own.safetensors"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)  # once as a process
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"own.safetensors: {len(tensors)} tensors with entitysam names, from entitysam names\n"
    state, kept = read_weights(tmp_path / "own.safetensors")
    assert kept == config["model"]
    assert_same(state, tensors)
    assert convert("own.safetensors", "-o", "theirs/published.pth", "--to", "published").returncode == 0
    assert_same(torch.load(tmp_path / "theirs" / "published.pth", weights_only=True)["model"], to_published(tensors))
    assert convert("theirs/published.pth", "-o", "b.safetensors", "--model", "tiny_scratch").returncode == 0
    state, kept = read_weights(tmp_path / "b.safetensors")
    assert kept == model_config("tiny_scratch")
    assert_same(state, tensors)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.safetensors", "own.safetensors", "run.pt", "theirs"]


def test_refused_files(tmp_path, tensors, convert):
    (tmp_path / "empty.pth").touch()
    assert_refused(convert("empty.pth", "-o", "a.safetensors"), "empty.pth: cannot be read as weights")
    assert_refused(convert("nowhere.pt", "-o", "a.safetensors"), "no weight file nowhere.pt")
    torch.save(tensors, tmp_path / "plain.pt")
    assert_refused(convert("plain.pt", "-o", "a.safetensors"), "carries no config", "--model")
    assert_refused(convert("plain.pt", "-o", "a.onnx", "--model", "tiny_scratch"), "must end in .safetensors")
    part = {name: value for name, value in to_published(tensors).items() if name.startswith("dinov2")}
    release = {name.removeprefix("dinov2_feature_extractor."): v for name, v in part.items() if "extractor" in name}
    torch.save(release, tmp_path / "dinov2.pth")
    partly = convert("dinov2.pth", "-o", "a.safetensors", "--model", "tiny_scratch")
    assert_refused(partly, "dinov2.pth: a DINOv2 release is not a complete model; it lacks dual_encoder.")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dinov2.pth", "empty.pth", "plain.pt"]


def test_help_shows_an_example(convert):
    done = convert("--help")
    assert done.returncode == 0
    assert "python tools/convert_checkpoint.py model_0009999.pth -o entitysam_vits.safetensors" in done.stdout
