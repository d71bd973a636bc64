"""The command itself: killed while it writes edits, ended by signals, started with bad arguments; and a full disk."""

import http.client
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import numpy as np
import pytest
from support.disks import mounted
from support.small_result import moving_squares, write_result
from support.small_studio import small_studio

from entitysam.cli import main
from entitysam.edits.journal import Journal
from entitysam.edits.operations import Merge, Rename
from entitysam.io.files import OutputError
from entitysam.serve.exporting import export
from entitysam.serve.opened import OpenedResult, result_identity
from entitysam.serve.segmenting import Studio
from entitysam.serve.server import BackgroundServer
from entitysam.serve.workspace import Workspace

COMMAND = [sys.executable, "-c", "from entitysam.cli import main; raise SystemExit(main())", "serve"]
HEADERS = {"X-Tab": "a1" * 16, "Content-Type": "application/json"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_result(tmp_path_factory.mktemp("result") / "squares", *moving_squares(6, (48, 64)))


def test_killed_while_it_edits_it_loses_nothing_that_was_answered(folder):
    process = subprocess.Popen(
        [*COMMAND, str(folder), "--port", "0", "--no-uploads"], stdout=subprocess.PIPE, text=True
    )
    url = process.stdout.readline().split()[1]
    assert url.startswith("http://127.0.0.1:")
    connection = http.client.HTTPConnection(url.split("/")[2], timeout=30)

    def ask(path, value=None):
        body = None if value is None else json.dumps(value)
        connection.request("GET" if value is None else "POST", path, body, HEADERS)
        return json.loads(connection.getresponse().read())

    key = ask("/api/results")[0]["key"]
    answered = 0
    try:
        while True:
            if answered == 4:
                threading.Timer(0.5, process.send_signal, [signal.SIGKILL]).start()
            edit = {"kind": "rename", "id": 2, "name": f"name {answered}"}
            ask(f"/api/results/{key}/edits", {"revision": answered, "edit": edit})
            answered += 1
    except (OSError, http.client.HTTPException):
        pass
    assert process.wait(30) == -signal.SIGKILL
    assert answered > 3
    edits = OpenedResult(folder).journal.edits
    assert len(edits) in (answered, answered + 1)  # one more where only the answer was lost
    assert [edit.name for edit in edits] == [f"name {number}" for number in range(len(edits))]


@pytest.mark.slow
def test_killed_while_it_segments_it_loses_no_finished_frame(tmp_path):
    """The worker ends after its frame when the server is gone; the server that starts again has the result."""
    frames, _ = moving_squares(400, (48, 64))
    clip = write_result(tmp_path / "long", frames[:400], np.ones((400, 48, 64), np.int32)) / "clip.mp4"
    studio = small_studio(tmp_path)
    process = subprocess.Popen(
        [*COMMAND, "--port", "0", "--work", str(studio.folder), "--model", studio.model, "--device", "cpu"],
        stdout=subprocess.PIPE,
        text=True,
    )
    address = process.stdout.readline().split()[1].split("/")[2]

    def ask(method, path, body=None):
        connection = http.client.HTTPConnection(address, timeout=600)
        connection.request(method, path, body, HEADERS)
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return answer

    ask("POST", "/api/uploads?name=long.mp4", clip.read_bytes())
    end = time.monotonic() + 900
    while (done := ask("GET", "/api/jobs")[0]["done"]) < 3:
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    (place,) = studio.folder.iterdir()
    while not (place / "result" / "segments.json").is_file():
        assert time.monotonic() < end
        time.sleep(0.1)
    time.sleep(1.0)
    workspace = Workspace()
    studio.reopen(workspace)
    (entry,) = workspace.visible(HEADERS["X-Tab"])
    assert done <= entry.result.num_frames < 400
    assert entry.result.frame(done - 1).shape == (48, 64, 3)


def test_bad_arguments_are_one_line(folder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for arguments, message in [
        ([tmp_path / "empty"], "no finished result"),
        ([tmp_path / "nothing"], "no finished result"),
        ([folder, folder, "--input", "x.mp4"], "exactly one result"),
        ([folder, "--host", "0.0.0.0", "--token", "short"], "at least 16 characters"),
        ([folder, "--port", "99999999"], "cannot be listened on"),
        ([folder, "--model", "none"], "none"),
    ]:
        assert main(["serve", *map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


@pytest.fixture
def small_disk(tmp_path):
    with mounted(tmp_path / "disk", "size=256k") as place:
        yield place


def test_a_full_disk_is_said_and_breaks_nothing(folder, small_disk):
    opened = OpenedResult(folder, journal=small_disk / "edits.jsonl")
    opened.edit(Merge(id=2, into=3))
    with (small_disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(b"x" * 4096)
    states = [opened.state()]

    def rename_until_refused():
        for number in range(2000):
            opened.edit(Rename(id=3, name=f"{number:04d}" * 40))
            states.append(opened.state())

    with pytest.raises(OutputError, match="No space left"):
        rename_until_refused()
    assert opened.state() == states[-1]
    with pytest.raises(OutputError, match="No space left"):
        export(opened.snapshot(), "maps", small_disk, lambda: None)
    (small_disk / "filler").unlink()
    opened.edit(Rename(id=3, name="again"))
    again = Journal(small_disk / "edits.jsonl", result_identity(opened.saved))
    assert again.edits == opened.journal.edits


def test_an_upload_on_a_full_disk_is_said(small_disk):
    studio = Studio(small_disk / "uploads")
    with BackgroundServer(Workspace(), studio=studio) as server:
        connection = http.client.HTTPConnection(server.url.split("/")[2], timeout=30)
        connection.request("POST", "/api/uploads?name=a.mp4", b"x" * 270_000, HEADERS)  # little more than fits
        answer = connection.getresponse()
        assert answer.status == 507
        assert json.loads(answer.read())["error"] == "the upload: cannot be written (No space left on device)"
        connection.request("GET", "/api/jobs", None, HEADERS)
        assert json.loads(connection.getresponse().read()) == []
    assert list(studio.folder.iterdir()) == []


def test_a_result_without_its_video_is_still_shown(folder, tmp_path):
    target = tmp_path / "moved"
    shutil.copytree(folder, target)
    (target / "edits.jsonl").unlink(missing_ok=True)
    tracks = (target / "tracks.json").read_text()
    (target / "tracks.json").write_text(tracks.replace(str(folder), str(tmp_path / "gone")))
    assert OpenedResult(target).frame(2).shape == (48, 64, 3)  # the clip in the folder
    (target / "clip.mp4").write_bytes(b"broken")
    opened = OpenedResult(target)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"clip.mp4"):
            opened.frame(0)
    assert opened.problem.startswith("clip.mp4: not a video")
    np.testing.assert_array_equal(opened.ids(0), moving_squares(6, (48, 64))[1][0])


def test_a_request_that_waits_is_answered_when_the_server_ends():
    """And not cancelled, which fills the terminal with a traceback wherever a page is open."""
    server = BackgroundServer(Workspace())
    connection = http.client.HTTPConnection(server.url.split("/")[2], timeout=30)
    connection.request("GET", f"/api/events?version={server.workspace.version}", None, HEADERS)
    while not server._server.server_state.tasks:
        time.sleep(0.01)
    server.close()
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())) == (200, {"version": 0, "revisions": {}})


@pytest.mark.slow
def test_it_ends_by_ctrl_c(folder):
    process = subprocess.Popen(
        [*COMMAND, str(folder), "--port", "0", "--no-uploads"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline().startswith("open http://")
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert time.monotonic() - started < 25
