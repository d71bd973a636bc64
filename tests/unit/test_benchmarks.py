"""`tools/benchmark.py` runs; what it measures is not tested."""

import argparse

from benchmarks import model


def test_the_shipped_model_is_measured_with_its_own_weights(capsys):
    parser = argparse.ArgumentParser()
    model.add_arguments(parser)
    model.run(parser.parse_args(["--model", "tiny", "--image-size", "64", "--frames", "1", "--device", "cpu", "--variants", "eager"]))  # fmt: skip
    printed = capsys.readouterr().out
    assert "| fp32 | " in printed
    assert "| memory read | " in printed
    assert "| fp32, level 3 | " in printed
