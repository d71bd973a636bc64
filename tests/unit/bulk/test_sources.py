"""Videos at addresses, from a real server on this machine."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from entitysam.bulk import sources
from entitysam.bulk.sources import TRIES, fetched
from entitysam.io.readers.base import InputError

CONTENT = bytes(range(256)) * 400


@contextmanager
def serving(broken):
    """A server whose first `broken` answers end half-way. Yields its address and the list of its requests."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(b"")

        def do_GET(self):
            requests.append(self.path)
            self.answer(CONTENT[: len(CONTENT) // 2] if len(requests) <= broken else CONTENT)

        def answer(self, content):
            if "none" in self.path:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(content)
            self.close_connection = True

        def log_message(self, *words):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(sources, "PAUSE", 0.01)


def test_a_broken_connection_is_tried_again(tmp_path):
    with serving(broken=TRIES - 1) as (address, requests):
        with fetched(f"{address}/a%20b.mp4") as path:
            assert Path(path).read_bytes() == CONTENT
            assert path.endswith(".mp4")
        assert requests == ["/a%20b.mp4"] * TRIES
    assert not Path(path).exists()


def test_what_cannot_be_fetched_is_one_line():
    with serving(broken=100) as (address, _):
        with (
            pytest.raises(InputError, match=r"http.*/a\.mp4: cannot be fetched \(.+\), tried 3 times") as caught,
            fetched(f"{address}/a.mp4"),
        ):
            pass
        assert "\n" not in str(caught.value)
        with pytest.raises(InputError, match=r"none\.mp4: no such file"), fetched(f"{address}/none.mp4"):
            pass
    with pytest.raises(InputError, match=r"cannot be fetched|no such file"), fetched("memory://none.mp4"):
        pass
    with pytest.raises(InputError, match=r"gopher://host/a\.mp4"), fetched("gopher://host/a.mp4"):
        pass


def test_local_paths_stay(tmp_path):
    with fetched(str(tmp_path / "x.mp4")) as path:
        assert path == str(tmp_path / "x.mp4")
