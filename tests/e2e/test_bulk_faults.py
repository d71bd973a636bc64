"""A job whose processes are killed, or whose disk is full: at most the videos in hand are lost, and it continues."""

import signal
import subprocess
import sys
import time

import psutil
import pyarrow.parquet as pq
import pytest
from support.collections import FRAMES, MODEL, write_video
from support.disks import mounted, resize

from entitysam.cli import main

VIDEOS, WORKERS = 10, 2
COMMAND = [sys.executable, "-c", "from entitysam.cli import main; raise SystemExit(main())", "bulk"]
START = 900  # seconds: processes that import torch, on a machine that does much else
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collection")
    for number in range(VIDEOS):
        write_video(folder / f"{number:02d}.mp4", number)
    return folder


@pytest.fixture(scope="module")
def expected(collection, tmp_path_factory):
    """The tables of a job that nothing happens to."""
    out = tmp_path_factory.mktemp("expected") / "out"
    assert main(["bulk", str(collection), "-o", str(out), "--workers", "1", *MODEL]) == 0
    return {path.name: pq.read_table(path) for path in (out / "entities").iterdir()}


def start(collection, out, *words):
    return subprocess.Popen(
        [*COMMAND, str(collection), "-o", str(out), *words, *MODEL], stderr=subprocess.PIPE, text=True
    )


def finished(out):
    """Times of the complete tables."""
    folder = out / "entities"
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.parquet")} if folder.is_dir() else {}


def wait_for_some(process, out):
    """Until some videos are finished, and some are not."""
    end = time.monotonic() + START
    while len(finished(out)) < 2:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.02)


def check(out, expected, before):
    """Everything is there, nothing that was finished was done again, nothing else is left."""
    rows = pq.read_table(out / "videos.parquet").to_pylist()
    assert [(row["status"], row["frames"]) for row in rows] == [("done", FRAMES)] * VIDEOS
    after = finished(out)
    assert {name: after[name] for name in before} == before
    assert sorted(path.name for path in (out / "entities").iterdir()) == sorted(expected)
    for name, table in expected.items():
        assert pq.read_table(out / "entities" / name).equals(table)


def test_a_killed_driver_costs_the_videos_in_hand(collection, expected, tmp_path):
    out = tmp_path / "out"
    process = start(collection, out, "--workers", str(WORKERS))
    wait_for_some(process, out)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    psutil.wait_procs(children, timeout=120)
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    before = finished(out)
    assert 2 <= len(before) < VIDEOS
    assert main(["bulk", str(collection), "-o", str(out), "--workers", "1", "--resume", *MODEL]) == 0
    check(out, expected, before)


def test_a_killed_ray_node_costs_the_videos_in_hand(collection, expected, tmp_path):
    """The only node of a Ray that starts by itself: the job ends with one line, and continues, here without Ray."""
    pytest.importorskip("ray")
    out = tmp_path / "out"
    process = start(collection, out, "--engine", "ray", "--workers", str(WORKERS))
    wait_for_some(process, out)
    children = psutil.Process(process.pid).children(recursive=True)
    nodes = [child for child in children if child.is_running() and child.name() == "raylet"]
    assert len(nodes) == 1
    nodes[0].kill()
    _, error = process.communicate(timeout=START)
    assert process.returncode != 0, error
    assert "Traceback" not in error
    psutil.wait_procs(children, timeout=120)
    before = finished(out)
    assert 2 <= len(before) < VIDEOS
    assert main(["bulk", str(collection), "-o", str(out), "--workers", "1", "--resume", *MODEL]) == 0
    check(out, expected, before)


@pytest.fixture
def small_disk(tmp_path):
    with mounted(tmp_path / "disk", "size=128k") as place:
        yield place


def test_a_full_disk_ends_the_job_which_then_continues(collection, expected, small_disk, capfd):
    out = small_disk / "out"
    assert main(["bulk", str(collection), "-o", str(out), "--workers", "1", *MODEL]) == 2
    note, error = capfd.readouterr().err.strip().splitlines()
    assert "--resume" in note
    assert "No space left" in error
    before = finished(out)
    assert len(before) < VIDEOS
    assert not (out / "videos.parquet").exists()
    assert not list((out / "entities").glob(".*"))
    resize(small_disk, "64m")
    assert main(["bulk", str(collection), "-o", str(out), "--workers", "1", "--resume", *MODEL]) == 0
    check(out, expected, before)
