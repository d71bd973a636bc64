"""Each protection is attacked over a real socket."""

import http.client
import json
import socket

import pytest
from support.small_result import moving_squares, write_result

from entitysam.serve.app import Settings
from entitysam.serve.routes import results as result_routes
from entitysam.serve.segmenting import Limits, Studio
from entitysam.serve.server import BackgroundServer, _listen, _settings
from entitysam.serve.workspace import Workspace

TAB, OTHER = "a1" * 16, "b2" * 16


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return write_result(tmp_path_factory.mktemp("result") / "squares", *moving_squares(4, (24, 32)))


@pytest.fixture(scope="module")
def server(result, tmp_path_factory):
    studio = Studio(tmp_path_factory.mktemp("work") / "uploads", limits=Limits(upload_mib=1))
    workspace = Workspace()
    workspace.open_folder(result)
    with BackgroundServer(workspace, Settings(), studio) as background:
        background.studio = studio
        yield background


@pytest.fixture(scope="module")
def key(server):
    return server.workspace.visible(TAB)[0].key


def port_of(server):
    return int(server.url.split(":")[2].split("/")[0])


def send(server, path, method="GET", body=None, **headers):
    """(status, headers, body) of one request; `None` leaves a header out."""
    port = port_of(server)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    given = {"host": f"127.0.0.1:{port}", "x-tab": TAB, **{k.replace("_", "-"): v for k, v in headers.items()}}
    connection.putrequest(method, path, skip_host=True)
    for name, value in given.items():
        if value is not None:
            connection.putheader(name, value)
    if body is not None and "content-length" not in given and "transfer-encoding" not in given:
        connection.putheader("content-length", str(len(body)))
    connection.endheaders(body)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, content


def post(server, path, value, **headers):
    return send(server, path, "POST", json.dumps(value).encode(), content_type="application/json", **headers)


def test_the_page_may_load_nothing_foreign_and_not_be_framed(server):
    status, headers, body = send(server, "/", x_tab=None)
    assert status == 200
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert not [name for name in headers if name.startswith("access-control")]
    assert b"http://" not in body.replace(b"http://www.w3.org", b"")
    assert b"https://" not in body


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", None, "localhost.evil"]
)
def test_a_foreign_name_of_this_machine_reaches_nothing(server, host):
    for path in ("/", "/api/results", "/static/main.js"):
        assert send(server, path, host=host)[0] in (400, 403), (path, host)


@pytest.mark.parametrize("host", ["localhost:{}", "127.0.0.1:{}", "[::1]:{}", "LOCALHOST:{}"])
def test_its_own_names_work(server, host):
    assert send(server, "/api/results", host=host.format(port_of(server)))[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"x_tab": None},
        {"x_tab": "short"},
        {"x_tab": "A1" * 16},
        {"x_tab": "a1" * 40},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ],
)
def test_forged_requests_are_refused(server, key, headers):
    revision = server.workspace.result(key, TAB).revision
    edit = {"revision": revision, "edit": {"kind": "delete", "id": 2, "first": 0, "last": 3}}
    assert post(server, f"/api/results/{key}/edits", edit, **headers)[0] == 403
    assert send(server, "/api/results", **headers)[0] == 403
    assert server.workspace.result(key, TAB).revision == revision


def test_a_form_of_another_page_changes_nothing(server, key):
    """What a page can send without asking first: a POST as text or form, without own headers."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        body = b'{"revision": 0, "edit": {"kind": "rename", "id": 1, "name": "x"}}'
        status, _, _ = send(server, f"/api/results/{key}/edits", "POST", body, x_tab=None, content_type=kind)
        assert status == 403
    status, headers, _ = send(server, "/api/results", "OPTIONS", origin="http://evil.example", x_tab=None,
                              access_control_request_headers="x-tab", access_control_request_method="POST")  # fmt: skip
    assert status in (403, 405)
    assert not [name for name in headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/../../etc/passwd", "/etc/passwd",
        "/static//etc/passwd", "/static/%2fetc%2fpasswd", "/static/main.js%00.css", "/static/", "/download/../../etc/passwd",
        "/download/x", "/openapi.json", "/docs",
    ],
)  # fmt: skip
def test_no_path_reaches_the_disk(server, path):
    status, _, body = send(server, path)
    assert status in (400, 404)
    assert b"root:" not in body
    assert b"import" not in body


@pytest.mark.parametrize("bad", ["..", "%2e%2e", "..%2f..", "/etc", "x" * 5000, "%00"])
def test_no_key_is_a_path(server, bad):
    for path in (f"/api/results/{bad}", f"/api/results/{bad}/maps?start=0&count=1", f"/api/results/follow/{bad}"):
        status, _, body = send(server, path, "POST" if "follow" in path else "GET")
        assert status in (400, 404, 405), (path, status)
        assert b"Traceback" not in body


@pytest.mark.parametrize("query", ["start=-1&count=1", "start=0&count=65", "start=0&count=0", "start=x&count=1", "start=0", "start=99999999999&count=1"])  # fmt: skip
def test_ranges_are_bounded(server, key, query):
    assert send(server, f"/api/results/{key}/maps?{query}")[0] == 422
    assert send(server, f"/api/results/{key}/frames?{query}")[0] == 422
    assert result_routes.router.prefix == "/results"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'{"revision": 0}', b'{"edit": {}}', b'{"revision": -1, "edit": {}}', b"[" * 50_000,
     b'{"revision": 0, "edit": {"kind": "masks", "id": 1, "masks": {"0": [768]}}}', b'{"revision": 0, "edit": {"kind": "x"}}',
     b'{"revision": 1e400, "edit": {}}', b"\xff\xfe"],
)  # fmt: skip
def test_broken_edits_get_a_sentence(server, key, body):
    status, headers, content = send(server, f"/api/results/{key}/edits", "POST", body, content_type="application/json")
    assert status in (400, 422), content
    assert headers["content-type"].startswith("application/json")
    assert 3 < len(json.loads(content)["error"]) < 300


def test_uploads_are_bounded_in_size_and_by_type(server):
    folder = server.studio.folder
    assert post(server, "/api/uploads?name=x.exe", {})[0] == 422
    assert post(server, "/api/uploads?name=x", {})[0] == 422
    assert post(server, "/api/uploads?name=", {})[0] == 422
    announced = send(server, "/api/uploads?name=x.mp4", "POST", b"", content_length=str(10**12))
    assert announced[0] == 422
    assert "larger than 1 MiB" in json.loads(announced[2])["error"]
    # A body that grows without an announced size is stopped on the way.
    port = port_of(server)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        head = f"POST /api/uploads?name=x.mp4 HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nx-tab: {TAB}\r\ntransfer-encoding: chunked\r\n\r\n"
        connection.sendall(head.encode())
        answer = b""
        try:
            for _ in range(64):
                connection.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        except OSError:
            pass
        try:
            answer = connection.recv(4096)
        except OSError:
            answer = b"closed"
    assert answer.startswith((b"HTTP/1.1 422", b"closed"))
    assert not folder.exists() or list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["../../evil.mp4", "/etc/cron.d/evil.mp4", "..\\..\\evil.mp4", "a/b/\x00c.mp4", "x" * 400 + ".mp4"])  # fmt: skip
def test_names_of_uploads_are_no_paths(server, name):
    path = server.studio.new_place(name, TAB)
    assert path.name == "upload.mp4"
    assert path.parent.parent == server.studio.folder
    title = server.studio.title_of(path.parent)
    assert "/" not in title
    assert "\\" not in title
    server.studio.discard(path.parent)
    assert not path.parent.exists()


def test_tabs_do_not_see_each_other(server, result):
    from entitysam.serve.opened import OpenedResult

    own = server.workspace.add("mine", OpenedResult(result, journal=result.parent / "own.jsonl"), owner=TAB)
    assert own.key in send(server, "/api/results")[2].decode()
    assert own.key not in send(server, "/api/results", x_tab=OTHER)[2].decode()
    for path in ("", "/state", "/lanes", "/maps?start=0&count=1", "/frames?start=0&count=1", "/review"):
        assert send(server, f"/api/results/{own.key}{path}", x_tab=OTHER)[0] == 404
        assert send(server, f"/api/results/{own.key}{path}")[0] == 200
    assert post(server, f"/api/results/{own.key}/share", {}, x_tab=OTHER)[0] == 404
    assert own.key not in json.loads(send(server, "/api/events?version=-1", x_tab=OTHER)[2])["revisions"]
    link = json.loads(post(server, f"/api/results/{own.key}/share", {})[2])["link"]
    assert send(server, f"/api/results/follow/{link[:-1]}0x", "POST", x_tab=OTHER)[0] == 404
    assert send(server, f"/api/results/follow/{link}", "POST", x_tab=OTHER)[0] == 200
    assert send(server, f"/api/results/{own.key}", x_tab=OTHER)[0] == 200
    job = json.loads(send(server, "/api/jobs")[2])[0]
    assert json.loads(send(server, "/api/jobs", x_tab=OTHER)[2]) == []
    assert post(server, f"/api/jobs/{job['key']}/cancel", {}, x_tab=OTHER)[0] == 404
    server.workspace.remove(own.key)


def test_other_hosts_need_a_token():
    with pytest.raises(ValueError, match="token"):
        _settings("0.0.0.0", "short")
    settings = _settings("0.0.0.0", None)
    assert len(settings.token) >= 32
    assert _settings("127.0.0.1", None).token == ""
    with BackgroundServer(Workspace(), settings) as server:
        assert settings.token in server.url
        assert send(server, "/", host="any.example", x_tab=None)[0] == 200  # the page itself holds nothing
        for given in (None, "", "Bearer ", f"Bearer {settings.token[:-1]}", f"Bearer {settings.token}x"):
            assert send(server, "/api/results", host="any.example", authorization=given)[0] == 401
        assert send(server, "/api/results", host="any.example", authorization=f"Bearer {settings.token}")[0] == 200
    with pytest.raises(ValueError, match="token"):
        BackgroundServer(Workspace(), Settings(hosts=None))


def test_a_port_that_is_taken_is_one_line():
    with _listen("127.0.0.1", 0) as taken, pytest.raises(ValueError, match="cannot be listened on"):
        _listen("127.0.0.1", taken.getsockname()[1])


def test_only_loopback_is_listened_on(server):
    assert server._listener.getsockname()[0] == "127.0.0.1"


def test_websockets_and_odd_methods_are_refused(server):
    upgrade = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec_websocket_version": "13",
        "sec_websocket_key": "x" * 24,
    }
    assert send(server, "/api/results", **upgrade)[0] in (200, 400, 403, 426)  # answered as plain HTTP at most
    for method in ("PUT", "DELETE", "TRACE", "PATCH"):
        assert send(server, "/api/results", method)[0] in (400, 404, 405)
