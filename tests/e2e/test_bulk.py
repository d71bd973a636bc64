"""`entitysam bulk` with worker processes: results are those of `segment`, faults are rows, a killed job continues."""

import json
import multiprocessing
import os
import re
import shutil
import signal
import threading
import time

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from support.collections import FRAMES, MODEL, write_images, write_video

import entitysam
from entitysam.cli import main

GOOD = {"a": 0, "deep/a": 1, "ünï çödé": 2, "frames": 3}


def bulk(*words):
    return main(["bulk", *map(str, words), *MODEL])


def outcomes(out):
    return {row["id"]: row for row in pq.read_table(out / "videos.parquet").to_pylist()}


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """Four good inputs and three broken ones."""
    folder = tmp_path_factory.mktemp("collection")
    for name, seed in GOOD.items():
        if name == "frames":
            write_images(folder / name, seed)
        else:
            write_video(folder / f"{name}.mp4", seed)
    (folder / "empty.mp4").touch()
    (folder / "noise.mkv").write_bytes(bytes(range(256)) * 40)
    (folder / "list.txt").write_text("missing.mp4\n")
    return folder


@pytest.fixture(scope="module")
def finished(collection, tmp_path_factory):
    """The output of a job with two workers, one of which is killed while it has a video in hand."""
    out = tmp_path_factory.mktemp("finished") / "out"
    killed = []

    def kill_one():
        while not (out / ".job" / "journal.jsonl").is_file() or not multiprocessing.active_children():
            time.sleep(0.1)
        child = multiprocessing.active_children()[0]
        os.kill(child.pid, signal.SIGKILL)
        killed.append(child.pid)

    thread = threading.Thread(target=kill_one)
    thread.start()
    assert bulk(collection, collection / "list.txt", "-o", out, "--workers", 2) == 3
    thread.join()
    assert killed
    return out


def test_broken_videos_are_rows(finished):
    rows = outcomes(finished)
    assert {name for name, row in rows.items() if row["status"] == "done"} == set(GOOD)
    failed = {name: row["error"] for name, row in rows.items() if row["status"] == "failed"}
    assert set(failed) == {"empty", "noise", "missing"}
    assert failed["empty"].endswith("empty.mp4: the file is empty")
    assert failed["missing"].endswith("missing.mp4: no such file or folder")
    assert failed["noise"].startswith("noise.mkv: not a video")
    assert all((row["frames"], row["width"], row["height"]) == (FRAMES, 64, 48) for row in rows.values() if row["file"])
    assert len({row["worker"] for row in rows.values()}) >= 2


def test_results_are_those_of_segment(collection, finished, tmp_path):
    results = entitysam.open_results(finished)
    for name in ("deep/a", "frames"):
        source = collection / name if name == "frames" else collection / f"{name}.mp4"
        assert main(["segment", str(source), "-o", str(tmp_path / "out"), *MODEL]) == 0
        tracks = json.loads((tmp_path / "out" / "tracks.json").read_text())
        video = results[name]
        assert (video.frames, video.width, video.height, video.fps) == tuple(
            tracks[key] for key in ("frames", "width", "height", "fps")
        )
        assert {track["id"]: track["score"] for track in tracks["tracks"]} == {
            number: round(score, 6) for number, score in video.scores.items()
        }
        expected = [
            {"entity": track["id"], "box": frame["bbox"], **{key: frame[key] for key in ("frame", "score", "area")},
             "rle": frame["segmentation"]}
            for track in tracks["tracks"] for frame in track["frames"]
        ]  # fmt: skip
        found = [
            {"entity": row["entity"], "box": [row[key] for key in ("x", "y", "width", "height")],
             **{key: row[key] for key in ("frame", "area", "rle")}, "score": round(row["score"], 6)}
            for row in video.table().to_pylist()
        ]  # fmt: skip
        assert expected
        key = lambda row: (row["frame"], row["entity"])  # noqa: E731
        assert sorted(found, key=key) == found == sorted(expected, key=key)
        for path in (tmp_path / "out").rglob("*"):
            path.unlink() if path.is_file() else None


def test_results_open_as_tables_and_arrays(finished):
    results = entitysam.open_results(finished)
    assert set(results) == set(GOOD)
    table = results.to_table(["video", "entity"])
    assert table.num_rows == results.to_pandas().shape[0] == results.to_polars().collect().height > 0
    video = results["a"]
    maps = np.stack(list(video.iter_ids()))
    assert maps.shape == (FRAMES, 48, 64)
    entity = max(video.scores)
    np.testing.assert_array_equal(
        np.stack([mask for _, mask in video.masks(entity)]), [m == entity for m in maps if entity in m]
    )
    assert (finished / "previews" / "a.jpg").stat().st_size > 500


def test_the_report_has_every_failure_and_needs_no_other_file(finished):
    report = json.loads((finished / "report.json").read_text())
    assert (report["videos"], report["done"], report["failed"]) == (7, 4, 3)
    assert report["frames"] == len(GOOD) * FRAMES
    assert {failure["id"] for failure in report["failures"]} == {"empty", "noise", "missing"}
    assert report["kinds_of_failures"]["the file is empty"] == 1
    page = (finished / "report.html").read_text()
    assert "the file is empty" in page
    assert page.count("data:image/png;base64,") == 3
    sheet = (finished / "contact_sheet.html").read_text()
    assert sheet.count("data:image/jpeg;base64,") == len(GOOD)
    assert "ünï çödé: 3 frames" in sheet
    for text in (page, sheet):
        assert not re.search(r'(src|href)="(?!data:|contact_sheet.html|report.html)', text)


def test_ray_gives_the_same_rows(collection, finished, tmp_path):
    """Two actors on a Ray that starts by itself; the process of one is killed while the job runs."""
    pytest.importorskip("ray")
    out, killed = tmp_path / "out", []

    def kill_one():
        children = []
        while (
            not children
            or not (out / ".job" / "journal.jsonl").is_file()
            or not (out / ".job" / "journal.jsonl").stat().st_size
        ):
            time.sleep(0.2)
            found = psutil.Process().children(recursive=True)
            children = [child for child in found if child.is_running() and "MapWorker" in child.name()]
        children[0].kill()
        killed.append(children[0].pid)

    thread = threading.Thread(target=kill_one, daemon=True)
    thread.start()
    assert bulk(collection, collection / "list.txt", "-o", out, "--engine", "ray", "--workers", 2) == 3
    thread.join(1)
    assert killed
    kept = ("id", "path", "status", "file", "frames", "entities", "width", "height", "fps", "error", "warnings")
    local, ray = outcomes(finished), outcomes(out)
    assert {name: [row[key] for key in kept] for name, row in ray.items()} == {
        name: [row[key] for key in kept] for name, row in local.items()
    }
    for name in GOOD:
        file = local[name]["file"]
        assert pq.read_table(out / file).equals(pq.read_table(finished / file))


def test_a_job_continues(collection, finished, tmp_path, capsys):
    before = {path: path.stat().st_mtime_ns for path in (finished / "entities").iterdir()}
    assert len(before) == len(GOOD)
    assert bulk(collection, "-o", finished) == 2
    assert "holds a job; --resume continues it" in capsys.readouterr().err
    assert bulk(collection, "-o", finished, "--resume", "--stride", 2) == 2
    assert "another one (stride was 1, is 2)" in capsys.readouterr().err
    # Nothing is left to do: no process starts.
    capsys.readouterr()
    assert bulk(collection, collection / "list.txt", "-o", finished, "--resume") == 3
    said = capsys.readouterr()
    assert "0 of 7 videos, 7 skipped, 3 failed" in said.out
    assert f"failed: empty: {collection / 'empty.mp4'}: the file is empty\n" in said.err
    assert said.err.endswith(f"{finished}/report.html; --retry-failed tries again\n")
    # An earlier video that is not named again is not lost without a word.
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    assert bulk(collection / "deep", "-o", out, "--resume") == 2  # 'a' was the one above
    assert bulk(collection / "a.mp4", "-o", out, "--resume") == 0
    assert "3 finished videos of earlier runs are not in these inputs" in capsys.readouterr().err
    assert set(outcomes(out)) == {"a"}
    assert {path: path.stat().st_mtime_ns for path in (finished / "entities").iterdir()} == before


def test_what_a_killed_driver_leaves_is_taken_up(collection, finished, tmp_path, capsys):
    """A journal whose last lines are lost or cut off, and a file that was being written: complete files are not done again."""
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    journal = out / ".job" / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    done = [line for line in lines if '"done"' in line]
    journal.write_text("".join([*(line for line in lines if '"done"' not in line), done[0], done[1][:40]]))
    (out / "videos.parquet").unlink()
    (out / "entities" / ".b.parquet.part").touch()
    assert bulk(collection, collection / "list.txt", "-o", out, "--resume") == 3
    assert "0 of 7 videos, 7 skipped, 3 failed" in capsys.readouterr().out
    found, expected = outcomes(out), outcomes(finished)
    for row in (*found.values(), *expected.values()):
        del row["seconds"]  # in a file those until it was written, in the journal those until it was closed
    assert found == expected
    assert not list((out / "entities").glob(".*"))
    moved = tmp_path / "other" / "a.mp4"
    moved.parent.mkdir()
    shutil.copy(collection / "a.mp4", moved)
    assert bulk(moved, "-o", out, "--resume") == 2
    assert f"'a' was another video there than {moved}" in capsys.readouterr().err


def test_other_outputs_are_refused(collection, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert bulk(collection, "-o", tmp_path) == 2
    assert "is not empty and no output of 'entitysam bulk'" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert bulk(tmp_path / "none.mp4", "-o", tmp_path / "new") == 2
    assert "none.mp4: no such file or folder" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
