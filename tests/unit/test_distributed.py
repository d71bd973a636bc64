"""Two gloo processes on a CPU with the real network: the numbers of one process; signals and errors reach all workers."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from support.training import clips_from, run_config, small_network

from entitysam import distributed
from entitysam.engine.train.state import CheckpointFolder
from entitysam.engine.train.trainer import fit
from entitysam.losses import EntityCriterion
from entitysam.losses.entity_criterion import mean_num_masks

HERE = Path(__file__).parent


RUN = {"train__batch_size": 4, "optim__max_iters": 3}
CASES = {amp: {**RUN, "train__amp": amp} for amp in ("fp32", "bf16")}


def fit_small(folder, changes, device):
    return fit(small_network(), EntityCriterion(num_points=128), clips_from, run_config(folder, **changes), device)


def train(folder, changes):
    """One worker of a run; module level, so that it can be spawned."""
    torch.set_num_threads(1)
    with distributed.process_group("cpu") as device:
        finished = fit_small(folder, changes, device)
    if not finished:
        sys.exit(143)


def work(folder):
    """One worker that trains all cases, calls the collective functions, and ends with an error of its config."""
    torch.set_num_threads(1)
    with distributed.process_group("cpu") as device:
        for name, changes in CASES.items():
            fit_small(folder / name, changes, device)
        rank = distributed.rank()
        found = {
            "num_masks": mean_num_masks(4 * rank, device).item(),
            "mean": distributed.mean_dict({"a": torch.tensor(rank + 1.0), "b": torch.tensor(3.0)}),
            "any": [distributed.any_worker(rank == 1, device), distributed.any_worker(False, device)],
            "gathered": distributed.gather(f"worker {rank}"),
        }
        (folder / f"{rank}.json").write_text(json.dumps(found))
        distributed.barrier()
        fit_small(folder / "refused", {"train__batch_size": 3}, device)


@pytest.fixture(scope="module")
def group(tmp_path_factory):
    """The folder of two workers, and the message with which they end."""
    folder = tmp_path_factory.mktemp("two")
    with pytest.raises(distributed.WorkerError) as error:
        distributed.launch(work, 2, (folder,))
    return folder, str(error.value)


def test_everything_is_a_no_op_on_one_process():
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    assert distributed.mean_dict({"a": torch.tensor(2.0)}) == {"a": 2.0}
    assert distributed.any_worker(True, torch.device("cpu"))
    assert distributed.gather(3) == [3]
    distributed.barrier()


@pytest.mark.parametrize("amp", CASES)
def test_two_workers_equal_one_at_equal_batch(group, tmp_path, amp):
    """In bf16 as well: every clip is computed alone, and only the sums over the workers are in another order."""
    fit_small(tmp_path, CASES[amp], torch.device("cpu"))
    folders = (tmp_path, group[0] / amp)
    one, two = (torch.load(folder / "model_final.pt", weights_only=True)["model"] for folder in folders)
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-4, msg=name)
    texts = [(folder / "metrics.jsonl").read_text() for folder in folders]
    rows = [[json.loads(line) for line in text.splitlines()] for text in texts]
    for a, b in zip(*rows, strict=True):
        assert a["total"] == pytest.approx(b["total"], rel=1e-4)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-3)


@pytest.mark.parametrize("rank", [0, 1])
def test_collective_functions(group, rank):
    assert json.loads((group[0] / f"{rank}.json").read_text()) == {
        "num_masks": 2.0,
        "mean": {"a": 1.5, "b": 3.0},
        "any": [True, False],
        "gathered": ["worker 0", "worker 1"],
    }


def test_an_error_of_a_worker_is_one_line(group):
    message = r"\S*ConfigError: train\.batch_size: 3 clips cannot be shared evenly by 2 worker\(s\)"
    assert re.fullmatch(message, group[1])


@pytest.mark.slow
def test_sigterm_reaches_the_workers(tmp_path):
    code = (
        f"import sys; sys.path[:0] = [{str(HERE)!r}, {str(HERE.parent)!r}];"
        "import test_distributed as t; from entitysam import distributed;"
        f"distributed.launch(t.train, 2, ({str(tmp_path)!r}, {{'optim__max_iters': 1000000}}))"
    )
    process = subprocess.Popen([sys.executable, "-c", "if __name__ == '__main__':\n    " + code], cwd=HERE)
    deadline = time.time() + 600
    while not (tmp_path / "metrics.jsonl").is_file() and time.time() < deadline:
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(timeout=300) == 143
    (saved,) = CheckpointFolder(tmp_path, 3).files()
    content = torch.load(saved, weights_only=True)
    assert len(content["random"]) == 2
    assert content["clips"] == 2 * content["iteration"]
