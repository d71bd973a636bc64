"""One worker in this process, and what an engine does when its processes end."""

import json
import multiprocessing
import os
import resource
import signal
import threading
import time

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from support.collections import write_video

from entitysam.bulk.engines.local import run_local
from entitysam.bulk.results import VideoResults
from entitysam.bulk.settings import Clip, Outcome, Settings
from entitysam.bulk.tables import ENTITIES, FOLDERS, PREVIEWS, VideoTable
from entitysam.bulk.worker import JobError, VideoWorker
from entitysam.exchange.collection import read_video
from entitysam.exchange.video import read_result
from entitysam.inference.windows.video import WindowedVideo
from entitysam.io.readers.source import open_frames

SMALL = Settings(
    model="tiny_scratch",
    weights="random",
    device="cpu",
    overrides={"image_size": 64, "num_entities": 5},
    inference={"score_threshold": 0.0, "overlap_threshold": 0.0, "warmup_frames": 0},
)


def make_out(folder):
    for name in (ENTITIES, PREVIEWS, FOLDERS):
        (folder / name).mkdir(parents=True)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = write_video(tmp_path_factory.mktemp("videos") / "a.mp4", 1, count=7)
    return Clip("set/a", str(path))


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    return VideoWorker(SMALL, make_out(tmp_path_factory.mktemp("out") / "out"))


def read(worker, outcome):
    return VideoResults.read(worker._out / outcome.file)


def test_sections_are_the_frames_between_their_times(worker, clip):
    outcome = worker.run(Clip("part", clip.path, 0.15, 0.5))
    assert (outcome.status, outcome.error) == ("done", "")
    video = read(worker, outcome)
    assert video.frames == ["00002", "00003", "00004"]
    assert video.times == pytest.approx([0.2, 0.3, 0.4])
    assert {row["frame"] for row in video.table().to_pylist()} <= {0, 1, 2}
    assert read_video(video).source == {"source": clip.path, "stride": 1, "max_frames": None, "start": 0.15, "end": 0.5}
    assert "has no frames" in worker.run(Clip("none", clip.path, 3.0, 3.0)).error
    late = worker.run(Clip("late", clip.path, 30.0, 31.0)).error
    assert late == f"{clip.path} (30 s to 31 s): no frames to segment"
    assert not (worker._out / ENTITIES / "late.parquet").exists()


def test_a_video_without_frames_is_a_failure(worker, tmp_path):
    with av.open(str(tmp_path / "hollow.mkv"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    outcome = worker.run(Clip("hollow", str(tmp_path / "hollow.mkv")))
    assert outcome.status == "failed"
    assert outcome.error.startswith("hollow.mkv: ")


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "a\\b:c", "..", "ünï\u2028", "CON", "x" * 400])
def test_any_name_of_a_video_is_a_file_of_the_output(worker, clip, name):
    outcome = worker.run(Clip(name, clip.path, 0.0, 0.15))
    assert (outcome.status, outcome.id) == ("done", name)
    file = worker._out / outcome.file
    assert file.resolve().parent == (worker._out / ENTITIES).resolve()
    assert {row["video"] for row in pq.read_table(file).to_pylist()} == {name}


def test_windows_are_those_of_segment(worker, clip, monkeypatch):
    monkeypatch.setattr(worker, "_settings", Settings(**{**vars(SMALL), "window": 4}))
    outcome = worker.run(Clip("windows", clip.path))
    with open_frames(clip.path) as frames:
        windows = WindowedVideo([worker._segmenter], frames, 4)
        maps = [found.ids for found in windows]
    found = read(worker, outcome)
    np.testing.assert_array_equal(list(found.iter_ids()), maps)
    # An entity that a window has only on shared frames, which come from its neighbour, has a score but no pixel.
    shown = set(np.unique(maps).tolist())
    assert found.scores == pytest.approx({number: score for number, score in windows.scores.items() if number in shown})


def test_result_folders_say_the_same_as_the_table(worker, clip, monkeypatch):
    monkeypatch.setattr(worker, "_settings", Settings(**{**vars(SMALL), "masks": True}))
    outcome = worker.run(clip)
    folder = next((worker._out / FOLDERS).iterdir())
    assert sorted(path.name for path in folder.iterdir()) == ["masks", "segments.json", "segments.jsonl", "tracks.json"]
    table, saved = read_video(read(worker, outcome)), read_result(folder)
    assert [(e.id, list(e.instances)) for e in table.entities] == [(e.id, list(e.instances)) for e in saved.entities]
    assert [i.mask for e in table.entities for i in e.instances.values()] == [
        i.mask for e in saved.entities for i in e.instances.values()
    ]
    assert table.times == pytest.approx(saved.times)
    monkeypatch.setattr(worker, "_settings", Settings(**{**vars(SMALL), "overlays": True}))
    assert worker.run(clip).status == "done"
    assert {"overlay.mp4", "contact_sheet.png"} <= {path.name for path in folder.iterdir()}


def test_a_table_is_complete_or_absent(tmp_path):
    ids = np.zeros((4, 5), int)
    ids[1:3, 2] = 7
    with pytest.raises(KeyError), VideoTable(tmp_path / "a.parquet", "a") as table:
        table.add("0", ids, {})  # no score
    assert not list(tmp_path.iterdir())
    with VideoTable(tmp_path / "a.parquet", "a") as table:
        table.add("0", ids, {7: 0.5}, 1.5)
        table.add("1", 0 * ids, {}, 2.0)
        table.finish({7: 0.25}, {})
    rows = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert rows == [{"video": "a", "entity": 7, "frame": 0, "time": 1.5, "score": 0.5, "x": 2, "y": 1, "width": 1,
                     "height": 2, "area": 2, "rle": {"size": [4, 5], "counts": rows[0]["rle"]["counts"]}}]  # fmt: skip
    described = json.loads(pq.read_metadata(tmp_path / "a.parquet").metadata[b"entitysam"])
    assert (described["frames"], described["times"], described["scores"]) == (["0", "1"], [1.5, 2.0], {"7": 0.25})


def test_a_full_disk_ends_the_job(worker, clip):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # a write behind it fails, as on a full disk
        with pytest.raises(JobError, match="cannot be written"):
            worker.run(Clip("full", clip.path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    assert not [path for path in (worker._out / ENTITIES).iterdir() if "full" in path.name]


def test_a_video_that_ends_its_worker_twice_is_given_up(tmp_path, clip):
    over = threading.Event()

    def kill_all():
        while not over.is_set():
            for child in multiprocessing.active_children():
                os.kill(child.pid, signal.SIGKILL)
            time.sleep(0.05)

    thread = threading.Thread(target=kill_all)
    thread.start()
    try:
        events = list(run_local(SMALL, make_out(tmp_path / "out"), iter([clip]), 1, tmp_path))
    finally:
        over.set()
        thread.join()
    outcomes = [event for event in events if isinstance(event, Outcome)]
    assert [(outcome.status, outcome.error) for outcome in outcomes] == [
        ("failed", "its worker was ended by SIGKILL, 2 times")
    ]


def test_weights_that_cannot_be_read_end_the_job(tmp_path, clip):
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    settings = Settings(**{**vars(SMALL), "weights": str(tmp_path / "broken.safetensors")})
    with pytest.raises(JobError, match=r"broken\.safetensors"):
        list(run_local(settings, make_out(tmp_path / "out"), iter([clip] * 3), 1, tmp_path))
    assert not multiprocessing.active_children()
