"""What a run logs: rows and images for Weights & Biases, console lines, rows of a resumed run."""

import json
import sys
import types

import numpy as np
import pytest
import torch
from support.training import run_config

from entitysam.engine.train.run_logger import RunLogger, keep_rows
from entitysam.registry import ConfigError

CPU = torch.device("cpu")


class FakeRun:
    def __init__(self):
        self.logged, self.finished = [], False

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self):
        self.finished = True


@pytest.fixture
def wandb(monkeypatch):
    """A module that records its calls; `run` is the run that it starts."""
    module = types.ModuleType("wandb")
    module.run, module.settings = FakeRun(), {}

    def init(**settings):
        module.settings = settings
        return module.run

    module.init, module.log, module.Image = init, module.run.log, lambda image: ("image", image.shape)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def logger(folder, start=0, **changes):
    config = run_config(folder, **changes)
    return RunLogger(folder, config.train, config.optim.max_iters, CPU, start, {"seed": 7})


def test_wandb_gets_rows_images_and_the_config(wandb, tmp_path):
    log = logger(tmp_path / "run", train__wandb="entities", train__log_period=2, optim__max_iters=5)
    for iteration in range(1, 6):
        log.iteration(iteration, {"total": float(iteration)}, 0.1, {"step": 1.0, "data": 0.5})
    log.image(5, "clip", np.zeros((4, 6, 3), np.uint8))
    log.close()
    assert wandb.settings["project"] == "entities"
    assert wandb.settings["config"] == {"seed": 7}
    assert wandb.settings["name"] == "run"
    rows = [(step, values["total"]) for step, values in wandb.run.logged if "total" in values]
    assert rows == [(2, 1.5), (4, 3.5), (5, 5.0)]
    assert wandb.run.logged[-1] == (5, {"clip": ("image", (4, 6, 3))})
    assert wandb.run.finished


def test_missing_wandb_is_reported_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"train\.wandb: .*pip install 'entitysam\[wandb\]'") as error:
        logger(tmp_path, train__wandb="entities")
    assert "\n" not in str(error.value)
    logger(tmp_path).close()


def test_console_line(tmp_path, caplog):
    log = logger(tmp_path, optim__max_iters=90000)
    with caplog.at_level("INFO", logger="entitysam"):
        log.iteration(1, {"total": 2.5, "mask": 0.25}, 5e-5, {"step": 2.0, "data": 0.125})
    assert "iter 1/90000  total 2.5000  mask 0.2500  lr 5.00e-05  2.000 s/it (data 0.125)" in caplog.text
    assert "GB  left 2d 01:59:58" in caplog.text


def test_rows_after_the_checkpoint_and_a_torn_line_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"iteration": i}) + "\n" for i in (1, 2, 3)) + '{"iteration": 4, "to')
    keep_rows(path, 2, 2)
    assert [json.loads(line)["iteration"] for line in path.read_text().splitlines()] == [1, 2]
