"""`tools/benchmark.py` runs; what it measures is not tested."""

import sys

import benchmark
import pytest


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *arguments])
    benchmark.main()


def test_the_shipped_model_is_measured_with_its_own_weights(monkeypatch, capsys):
    run(monkeypatch, "model", "--model", "tiny", "--image-size", "64", "--frames", "1", "--device", "cpu", "--variants", "eager")  # fmt: skip
    printed = capsys.readouterr().out
    assert "| fp32 | " in printed
    assert "| memory read | " in printed
    assert "| fp32, level 3 | " in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model", "--model", "nothing"], "unknown model 'nothing'"),
        (["levels", "nothing.mp4"], "nothing.mp4: no such file"),
    ],
)
def test_bad_input_is_one_line(monkeypatch, arguments, message):
    with pytest.raises(SystemExit, match=message) as stopped:
        run(monkeypatch, *arguments)
    assert "\n" not in str(stopped.value)
