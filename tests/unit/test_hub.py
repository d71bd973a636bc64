"""Downloads from the hub: pinned by revision, checked by hash, against an HTTP server on loopback."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from entitysam import hub
from entitysam.errors import CheckpointError
from entitysam.esam import sam_backend
from entitysam.hub import HubFile, fetch_from_hub, hub_is_reachable
from entitysam.shipped import HUB, TINY, fetch_weights, shipped_folder

FIRST, SECOND = b"first weights" * 1000, b"other weights" * 1000
COMMITS = {"a" * 40: FIRST, "b" * 40: SECOND}


def sha256(content):
    return hashlib.sha256(content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """A repository `owner/model` with one file; its newest commit is `server.main`."""

    def log_message(self, *arguments):
        pass

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, with_body):
        parts = self.path.split("/")
        if parts[1:4] != ["owner", "model", "resolve"] or parts[5:] != ["folder", "weights.pth"]:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        revision = self.server.main if parts[4] == "main" else parts[4]
        self.server.asked.append((self.command, parts[4]))
        content = COMMITS[revision]
        announced = sha256(content)
        if self.server.damage:
            content = b"x" * len(content)
        self.send_response(200)
        headers = {"X-Repo-Commit": revision, "ETag": f'"{announced}"', "Content-Length": len(content)}
        for name, value in (headers | {"Accept-Ranges": "bytes"}).items():
            self.send_header(name, str(value))
        self.end_headers()
        if with_body:
            self.wfile.write(content)


@contextmanager
def serving():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.main, server.asked, server.damage = "a" * 40, [], False
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def fetch(server, folder, revision="", expected=""):
    """Path and content, or the error message, of a fetch in a process whose hub is `server`."""
    program = (
        "import json, sys\nfrom pathlib import Path\nfrom entitysam.errors import CheckpointError\n"
        "from entitysam.hub import HubFile, fetch_from_hub\n"
        "try:\n"
        "    path = fetch_from_hub(HubFile('owner/model', 'folder/weights.pth', *sys.argv[1:]), 'weights', Path('here.pth'))\n"
        "    print(json.dumps([str(path), path.read_text()]))\n"
        "except CheckpointError as error:\n    print(json.dumps(str(error)))\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment |= {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(folder / "hub")}
    environment |= {"XDG_CACHE_HOME": str(folder / "cache"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    command = [sys.executable, "-c", program, revision, expected]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_first_download_is_pinned(tmp_path):
    with serving() as server:
        path, content = fetch(server, tmp_path)
        assert content == FIRST.decode()
        record = json.loads((tmp_path / "cache" / "entitysam" / "hub.json").read_text())[
            "owner/model/folder/weights.pth"
        ]
        assert (record["revision"], record["sha256"]) == ("a" * 40, sha256(FIRST))
        asked = len(server.asked)
        server.main = "b" * 40  # the repository moves on
        assert fetch(server, tmp_path) == [path, content]
        assert len(server.asked) == asked  # from the cache
        os.remove(os.path.realpath(path))  # the cache is emptied: the pinned commit is downloaded again
        os.remove(path)
        assert fetch(server, tmp_path)[1] == FIRST.decode()
        assert {revision for _, revision in server.asked[asked:]} == {"a" * 40}


def test_a_pinned_revision_and_hash(tmp_path):
    with serving() as server:
        assert fetch(server, tmp_path, "b" * 40, sha256(SECOND))[1] == SECOND.decode()
        message = fetch(server, tmp_path / "other", "a" * 40, sha256(SECOND))
        assert f"SHA-256 is {sha256(FIRST)}, not {sha256(SECOND)}" in message
        assert "owner/model/folder/weights.pth" in message
        assert not (tmp_path / "other" / "cache").exists()  # nothing is recorded


def test_a_damaged_download_is_refused(tmp_path):
    with serving() as server:
        server.damage = True
        assert f"SHA-256 is {sha256(b'x' * len(FIRST))}, not {sha256(FIRST)}" in fetch(server, tmp_path)


def test_a_file_that_changes_in_the_cache_is_refused(tmp_path):
    with serving() as server:
        path, _ = fetch(server, tmp_path)
        with open(path, "r+b") as file:
            file.write(b"X")
        assert f"not {sha256(FIRST)}" in fetch(server, tmp_path)


def fetch_offline(folder):
    file = HubFile("owner/model", "no/such.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.try_to_load_from_cache", lambda *names, **options: None)
        patch.setattr(hub, "hub_is_reachable", lambda: False)
        patch.setattr(
            "huggingface_hub.hf_hub_download", lambda *names, **options: pytest.fail("tried without a connection")
        )
        with pytest.raises(CheckpointError) as error:
            fetch_from_hub(file, "the weights", folder / "here.pth")
    return str(error.value)


def test_without_a_connection_the_download_is_not_tried(tmp_path):
    message = fetch_offline(tmp_path)
    for part in ("no/such.pth", "owner/model", str(tmp_path / "here.pth"), "--weights"):
        assert part in message
    assert "\n" not in message


def test_local_weights_need_no_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "hub_is_reachable", lambda: pytest.fail("no connection is needed"))
    (tmp_path / "entitysam_vitl.pth").touch()
    assert fetch_weights("vitl", tmp_path) == tmp_path / "entitysam_vitl.pth"


def test_broken_records_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "entitysam").mkdir()
    for broken in ("{", "[]", '{"a": 1}', "[" * 100_000):
        (tmp_path / "entitysam" / "hub.json").write_text(broken)
        with pytest.raises(CheckpointError, match=r"hub.json: "):
            fetch_from_hub(HubFile("owner/model", "weights.pth"), "the weights", tmp_path / "here.pth")


def test_hub_probe(monkeypatch):
    """A closed port is refused; HF_HUB_OFFLINE asks nothing."""
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert not hub_is_reachable()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert not hub_is_reachable()


def test_the_model_table_has_the_pinned_hashes():
    table = (Path(__file__).parents[2] / "checkpoints" / "README.md").read_text(encoding="utf-8")
    for name, digest in sam_backend.SHA256.items():
        assert f"`checkpoints/{name}`" in table
        assert digest in table
    assert sam_backend.HUB_REVISION in table
    for file in HUB.values():
        assert file.repository in table
        assert file.path in table
    for file in TINY.values():
        path = shipped_folder("checkpoints") / file
        assert not path.is_file() or sha256(path.read_bytes()) in table
