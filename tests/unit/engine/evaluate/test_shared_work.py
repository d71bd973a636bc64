"""Two processes share the videos: long shares do not time out, and an error that stops one stops the other at once."""

import json

import pytest
from support import shared_work
from support.video_layouts import write_vipseg

from entitysam import distributed
from entitysam.classification.classifier import ClassifierError
from entitysam.data.evaluation.vipseg import VIPSegVideos
from entitysam.engine.evaluate.loop import DeviceLostError, device_is_lost, predict_and_measure
from entitysam.engine.evaluate.run import Metrics, start_records
from entitysam.engine.formats.panoptic import PanopticFormat
from entitysam.evaluation import build_evaluators


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What both workers saw, by scenario. Collectives time out after 3 seconds, three videos of worker 1 take 6."""
    folder = tmp_path_factory.mktemp("two")
    root = write_vipseg(folder / "data", names=tuple("abcdef"))
    distributed.launch(shared_work.evaluate, 2, (str(root), str(folder), 3.0))
    first, second = (json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1))
    return {name: (first[name], second[name]) for name in first}


def test_a_worker_that_finishes_early_waits_longer_than_the_collective_timeout(outcomes):
    assert outcomes["long"][1]["seconds"] > 6
    for outcome in outcomes["long"]:
        assert outcome.get("error") is None, outcome
        assert outcome["VEQ"] == pytest.approx(100)
        assert outcome["failures"] == 0


@pytest.mark.parametrize(
    ("scenario", "error", "message"),
    [
        ("classifier", "ClassifierError", "the server refuses the key"),
        ("device", "DeviceLostError", "the device failed and cannot be used any more (RuntimeError: CUDA error"),
    ],
)
def test_an_error_that_stops_one_worker_stops_the_other(outcomes, scenario, error, message):
    first, second = outcomes[scenario]
    assert second["error"] == error
    assert message in second["message"]
    assert first["error"] == "WorkerError"
    assert first["message"] == f"worker 1: {second['message']}"


def test_the_worker_that_holds_the_store_leaves_last(tmp_path):
    distributed.launch(shared_work.finish_last_and_leave, 2, (str(tmp_path),))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]


class Fails:
    """Fails on every video after the first `good` ones."""

    def __init__(self, error, good=0):
        self.error, self.good, self.calls = error, good, 0

    def segment(self, frames, out_size):
        self.calls += 1
        if self.calls > self.good:
            raise self.error
        return shared_work.VideoSegments.of(shared_work.MAPS[: sum(1 for _ in frames)], [0.9, 0.8, 0.7])


def run_failing(tmp_path, method):
    dataset = VIPSegVideos(write_vipseg(tmp_path / "data", names=tuple("abcd")))
    evaluators = build_evaluators([{"name": "veq", "windows": [1]}], categories=dataset.categories)
    records = start_records(tmp_path / "out", {}, resume=True)
    return predict_and_measure(
        dataset, method, PanopticFormat(tmp_path / "out", dataset, True), evaluators, records, quiet=True
    )


def test_a_lost_device_ends_the_run_at_the_first_video(tmp_path):
    """Later videos would all fail; --resume continues with the video at which it happened."""
    method = Fails(RuntimeError("CUDA error: an illegal memory access was encountered"), good=2)
    with pytest.raises(DeviceLostError, match=r"video c: the device failed .*illegal memory access.*--resume"):
        run_failing(tmp_path, method)
    assert method.calls == 3
    method = Fails(None, good=9)
    assert run_failing(tmp_path, method).complete
    assert method.calls == 2


def test_other_errors_skip_their_video(tmp_path):
    method = Fails(RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB"))
    result = run_failing(tmp_path, method)
    assert method.calls == 4
    assert not result.complete
    assert not Metrics(result.metrics, result.complete).complete
    assert not device_is_lost(ValueError("x"))
    with pytest.raises(ClassifierError):
        run_failing(tmp_path / "again", Fails(ClassifierError("no server")))
