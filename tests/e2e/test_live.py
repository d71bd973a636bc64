"""`entitysam segment` on live inputs: the last seconds kept, a preview, lines on standard output, Ctrl-C."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from entitysam.cli import main
from entitysam.io.id_maps import read_ids
from entitysam.io.readers import stream
from entitysam.io.readers.source import open_frames
from entitysam.io.writers.frame_lines import read_lines
from entitysam.io.writers.preview import Preview
from entitysam.ops import rle_decode

SERVER = Path(__file__).parents[1] / "support" / "stream_server.py"
SMALL = ["--model", "tiny_scratch", "--weights", "random", "--image-size", "64", "--device", "cpu", "--quiet"]
SMALL += ["--threshold", "0", "--warmup-frames", "0", "model.num_entities=4", "inference.overlap_threshold=0"]


@contextmanager
def serving(count):
    """Address of a stream of so many frames at 20 frames/s."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, str(SERVER), "mjpeg", str(port), "64x48", str(count)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"ready\n"
        yield f"http://127.0.0.1:{port}/video.mjpg"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def check_folder(out):
    """Lines, masks and JSON files of a result agree; returns the lines."""
    lines = list(read_lines(out / "segments.jsonl"))
    (video,) = json.loads((out / "segments.json").read_text())["annotations"]
    names = [line["file_name"] for line in lines]
    assert names == [frame["file_name"] for frame in video["annotations"]] == sorted(os.listdir(out / "masks"))
    for line in lines:
        ids = read_ids(out / "masks" / line["file_name"])
        assert [info["id"] for info in line["segments_info"]] == [int(number) for number in np.unique(ids) if number]
        for info in line["segments_info"]:
            np.testing.assert_array_equal(rle_decode(info["segmentation"]), ids == info["id"])
    tracks = json.loads((out / "tracks.json").read_text())
    assert tracks["times"] == [line["time"] for line in lines]
    with open_frames(out / "overlay.mp4") as overlay:
        assert len(list(overlay)) == len(lines)
    return lines


def test_the_last_second_is_kept(tmp_path, capsys):
    out = tmp_path / "out"
    with serving(60) as address:
        assert main(["segment", address, "-o", str(out), "--keep", "0.5", "--max-frames", "40", *SMALL]) == 0
    lines = check_folder(out)
    assert lines[-1]["frame"] == 39
    assert len(lines) == 13  # 0.5 s at the 25 frames/s of motion JPEG without time stamps
    assert not (out / ".resume").exists()
    written = json.loads((out / "events.json").read_text())["events"]
    assert written == [{"frame": line["frame"], **event} for line in lines for event in line["events"]]
    assert "frames of another size" in capsys.readouterr().err


def test_ctrl_c_while_a_stream_is_silent_completes_the_result(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "READ_TIMEOUT", 60.0)
    out = tmp_path / "out"

    def interrupt():
        while not (out / "segments.jsonl").exists() or len(list(read_lines(out / "segments.jsonl"))) < 7:
            time.sleep(0.05)
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with serving(8) as address:
        started = time.monotonic()
        assert main(["segment", address, "-o", str(out), *SMALL]) == 0
        assert time.monotonic() - started < 45
    assert len(check_folder(out)) in (7, 8)


def test_pixels_in_and_lines_out(tmp_path):
    """A real pipeline of processes; the reader of the lines sees each before the next frame is sent."""
    frames = np.random.default_rng(0).integers(0, 256, (3, 48, 64, 3), dtype=np.uint8)
    code = "import sys; from entitysam.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "segment", "raw:64x48@10", "-o", "-", *SMALL]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    )
    for index, frame in enumerate(frames):
        process.stdin.write(frame.tobytes())
        process.stdin.flush()
        line = json.loads(process.stdout.readline())
        assert (line["frame"], line["time"]) == (index, index / 10)
        assert all(rle_decode(info["segmentation"]).shape == (48, 64) for info in line["segments_info"])
    rest, errors = process.communicate()
    assert process.returncode == 0
    assert rest == b""
    assert b"3 frames" in errors
    assert os.listdir(tmp_path) == []


def test_a_reader_of_lines_that_goes_away(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", READER], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    )
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait() == 7
    assert "stdout: cannot be written (Broken pipe)" in errors
    assert "Exception" not in errors


READER = """
import sys, numpy as np
from entitysam.io.files import OutputError
from entitysam.io.writers.stdout import StdoutWriter
try:
    with StdoutWriter() as writer:
        for index in range(100_000):
            writer.add(f"{index:05d}", None, np.ones((4, 4), np.int32), {1: 0.5})
except OutputError as error:
    print(error, file=sys.stderr)
    sys.exit(7)
"""


def test_preview():
    with Preview(0) as preview:
        preview.show(lambda: pytest.fail("drawn although nobody watches"))
        with urllib.request.urlopen(preview.url, timeout=10) as page:
            assert b"/stream" in page.read()
        shown = threading.Event()

        def feed():
            while not shown.wait(0.02):
                preview.show(lambda: np.full((48, 64, 3), (200, 40, 90), np.uint8))

        threading.Thread(target=feed, daemon=True).start()
        with urllib.request.urlopen(f"{preview.url}stream", timeout=10) as parts:
            for _ in range(3):
                assert parts.readline() == b"--frame\r\n"
                assert parts.readline() == b"Content-Type: image/jpeg\r\n"
                length = int(parts.readline().split(b":")[1])
                assert parts.readline() == b"\r\n"
                image = np.asarray(Image.open(io.BytesIO(parts.read(length))))
                np.testing.assert_allclose(image.mean((0, 1)), (200, 40, 90), atol=4)
                parts.readline()
        shown.set()
        for path, host, status in (("stream", "evil.example", 403), ("nothing", "localhost", 404)):
            request = urllib.request.Request(preview.url + path, headers={"Host": host})
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(request, timeout=10)
            assert refused.value.code == status
        with pytest.raises(OSError, match=r"preview: port \d+ cannot be used"):
            Preview(int(preview.url.split(":")[-1].strip("/")))


def test_the_preview_of_a_run(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    seen = []

    def watch():
        while not seen:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/stream", timeout=10) as parts:
                    seen.append(parts.read(2000))
            except OSError:
                time.sleep(0.05)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    with serving(200) as address:
        options = ["-o", str(tmp_path / "out"), "--preview", str(port), "--max-frames", "60"]
        assert main(["segment", address, *options, *SMALL]) == 0
    watcher.join(10)
    assert b"\xff\xd8" in seen[0]  # a JPEG
    assert f"preview: http://127.0.0.1:{port}/" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--keep", "5"], "--keep is a number of seconds above 0 of a live input"),
        (["--preview", "0"], "--preview needs an online run"),
        (["--online", "--preview", "99999"], "preview: port 99999 cannot be used"),
        (["--resume", "-o", "-"], "--resume needs a result folder, not '-o -'"),
        (["--labels", "dog", "-o", "-"], "--labels needs a result folder, not '-o -'"),
        (["--drop-stale"], "frames can be dropped only for a camera or live stream"),
    ],
)
def test_bad_options_are_one_line(tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(tmp_path / "a.png")
    assert main(["segment", "a.png", *SMALL, *options]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "random weights" not in line]
    assert len(lines) == 1
    assert message in lines[0]
