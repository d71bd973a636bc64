"""Live inputs: streams on loopback that are killed, restarted, change size and stop; pixels on standard input; clocks."""

import io
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest

from entitysam.io.readers import stream
from entitysam.io.readers.source import InputError, open_frames
from entitysam.io.readers.stream import StreamClock
from entitysam.io.writers.video import VideoWriter

SERVER = Path(__file__).parents[3] / "support" / "stream_server.py"
ADDRESSES = {
    "tcp": "tcp://127.0.0.1:{}",
    "mjpeg": "http://127.0.0.1:{}/video.mjpg",
    "rtsp": "rtsp://127.0.0.1:{}/live",
}


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(stream, "DELAYS", (0.1, 0.4))


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@contextmanager
def serving(kind, port, size="64x48", count=1000, first=0):
    command = [sys.executable, str(SERVER), kind, str(port), size, str(count), str(first)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"ready\n"
        if kind == "tcp":
            time.sleep(0.3)  # until it listens
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("kind", ["tcp", "rtsp", "mjpeg"])
def test_a_stream_that_is_killed_and_restarted_goes_on(kind, port):
    values = []
    with serving(kind, port) as server, open_frames(ADDRESSES[kind].format(port)) as source:
        assert (source.is_live, source.width, source.height, source.num_frames) == (True, 64, 48, None)
        frames = iter(source)
        values += [next(frames).mean() for _ in range(8)]
        server.kill()
        server.wait()
        with serving(kind, port, first=60):
            while values[-1] < 155:
                values.append(next(frames).mean())
        times = [source.time(index) for index in range(len(values))]
        source.end()
        assert len(list(frames)) < 20
    assert np.all(np.diff(values) > -2)
    assert values[0] == pytest.approx(40, abs=2)
    assert np.all(np.diff(times) > 0)
    assert times[7] == pytest.approx(7 / (25 if kind == "mjpeg" else 20), abs=0.01)  # the clock of the stream
    assert [text.split(": ")[1] for text in source.warnings] == ["lost connections, opened again"]


def test_a_stream_that_changes_size_and_stops(port, monkeypatch):
    monkeypatch.setattr(stream, "READ_TIMEOUT", 5.0)
    monkeypatch.setattr(stream, "PATIENCE", 5.0)
    with serving("mjpeg", port, count=10), open_frames(ADDRESSES["mjpeg"].format(port)) as source:
        frames = list(source)
    assert {frame.shape for frame in frames} == {(48, 64, 3)}
    np.testing.assert_allclose([frame.mean() for frame in frames], 40 + 2 * np.arange(len(frames)), atol=1)
    assert len(frames) >= 9  # a JPEG counts as complete when the next one starts
    label = ADDRESSES["mjpeg"].format(port)
    assert source.warnings == [
        f"{label}: frames of another size, scaled to 64x48: {len(frames) - 5}",
        f"{label}: ended, no frame for 5 s",
    ]


def test_a_slow_reader_gets_the_newest_frame_and_the_count_of_those_dropped(port):
    with (
        serving("tcp", port, count=80),
        open_frames(ADDRESSES["tcp"].format(port), max_frames=60, drop_stale=True) as source,
    ):
        frames = iter(source)
        first = next(frames).mean()
        time.sleep(1.0)
        next(frames)
        assert next(frames).mean() > first + 20
        assert source.dropped >= 9
        assert source.warnings == [
            f"{source.dropped} of {source.dropped + 3} frames were dropped: newer ones were there"
        ]


def test_waiting_for_a_stream_ends_at_once(port, monkeypatch):
    monkeypatch.setattr(stream, "DELAYS", (30.0, 30.0))
    with serving("tcp", port) as server, open_frames(ADDRESSES["tcp"].format(port)) as source:
        frames = iter(source)
        next(frames)
        server.kill()
        threading.Timer(0.5, source.end).start()
        started = time.monotonic()
        assert len(list(frames)) < 100
        assert time.monotonic() - started < 15


def test_what_cannot_be_reached_is_one_line(port):
    for address in ADDRESSES.values():
        with pytest.raises(InputError, match="not a stream that can be read") as caught:
            open_frames(address.format(port))
        assert "\n" not in str(caught.value)


def test_a_video_file_behind_an_address_is_read_twice(tmp_path):
    with VideoWriter(tmp_path / "clip.mp4", 64, 48, 10.0) as writer:
        for value in range(5):
            writer.add(np.full((48, 64, 3), 40 * value, np.uint8))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with open_frames(f"http://127.0.0.1:{server.server_port}/clip.mp4") as source:
            assert (source.is_live, source.num_frames) == (False, 5)
            assert len(list(source)) == len(list(source)) == 5
        server.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@contextmanager
def stdin_of(content, monkeypatch):
    """Standard input is a pipe with some content."""
    reading, writing = os.pipe()
    thread = threading.Thread(target=lambda: os.fdopen(writing, "wb").write(content))
    thread.start()
    with os.fdopen(reading) as pipe:
        monkeypatch.setattr(sys, "stdin", pipe)
        yield
    thread.join()


def test_raw_pixels(monkeypatch):
    frames = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
    with stdin_of(frames.tobytes() + b"half a frame", monkeypatch), open_frames("raw:5x4@10", stride=2) as source:
        assert (source.is_live, source.width, source.height, source.fps) == (True, 5, 4, 5.0)
        np.testing.assert_array_equal(list(source), frames[::2])
        assert [source.time(index) for index in range(3)] == [0.0, 0.2, 0.4]
        assert source.warnings == ["stdin: the last frame is not complete (12 of 60 bytes), left out"]
    with stdin_of(frames[:2].tobytes(), monkeypatch), open_frames("raw:5x4") as source:
        assert source.fps is None
        np.testing.assert_array_equal(list(source), frames[:2])
        assert 0 <= source.time(1) < 5


def test_a_video_on_standard_input(tmp_path):
    with VideoWriter(tmp_path / "clip.mp4", 64, 48, 10.0) as writer:
        for value in range(5):
            writer.add(np.full((48, 64, 3), 40 * value, np.uint8))
    with av.open(tmp_path / "clip.mp4") as clip, av.open(tmp_path / "clip.mkv", "w") as copy:
        stream = copy.add_stream_from_template(clip.streams.video[0])
        for packet in clip.demux(video=0):
            if packet.size:
                packet.stream = stream
                copy.mux(packet)
    code = "from entitysam.io.readers.source import open_frames; s = open_frames('-'); "
    code += "print([round(float(f.mean()), -1) for f in s], [s.time(i) for i in range(5)], s.is_live, s.warnings)"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        found, _ = reader.communicate((tmp_path / "clip.mkv").read_bytes())
    assert found.decode() == "[0.0, 40.0, 80.0, 120.0, 160.0] [0.0, 0.1, 0.2, 0.3, 0.4] True []\n"


@pytest.mark.parametrize("text", ["raw:", "raw:0x4", "raw:5x4@0", "raw:5x4@fast", "raw:5"])
def test_raw_sizes_that_are_refused(text, monkeypatch):
    with stdin_of(b"", monkeypatch), pytest.raises(InputError, match=f"{text}: not raw:WIDTHxHEIGHT"):
        open_frames(text)


def test_a_pipe_without_a_frame(monkeypatch):
    with (
        stdin_of(b"few", monkeypatch),
        pytest.raises(InputError, match=r"no frame of 5x4 pixels \(3 of 60 bytes\)"),
    ):
        open_frames("raw:5x4")
    monkeypatch.setattr(sys, "stdin", type("Terminal", (io.StringIO,), {"isatty": lambda self: True})())
    with pytest.raises(InputError, match="nothing is piped in"):
        open_frames("-")


@pytest.mark.parametrize(
    ("stamps", "arrivals", "expected", "jumps"),
    [
        ([5.0, 5.1, 5.2], [0, 0, 0], [0, 0.1, 0.2], 0),  # a burst keeps the distances of the stream
        ([5.0, 5.1, 2.0, 2.1], [0, 0.1, 0.3, 0.4], [0, 0.1, 0.3, 0.4], 1),  # back
        ([5.0, 3605.0, 3605.1], [0, 0.2, 0.3], [0, 0.2, 0.3], 1),  # an hour ahead
        ([5.0, 35.0], [0, 29.0], [0, 30.0], 0),  # a stream that was silent
        ([None, None, 7.0, 7.5], [0, 1, 2, 3], [0, 1, 2, 2.5], 0),
        ([5.0, 5.0], [0, 0], [0, 0.001], 1),  # times ascend
    ],
)
def test_the_clock_of_a_stream(stamps, arrivals, expected, jumps):
    clock = StreamClock(0.0)
    found = [clock.step(stamp, now) for stamp, now in zip(stamps, arrivals)]
    assert found == pytest.approx(expected)
    assert clock.jumps == jumps


def test_after_a_lost_connection_the_local_clock_counts():
    clock = StreamClock(0.0)
    clock.step(100.0, 1.0)
    clock.restart()
    assert clock.step(0.0, 4.0) == 3.0
    assert clock.jumps == 0
