"""What the page may open is what the person who started the server has named."""

import pytest
from support.small_result import moving_squares, write_result

from entitysam.cli.serve import split
from entitysam.io.readers.base import InputError
from entitysam.serve.segmenting import Studio, identity_of
from entitysam.serve.sources import Source, Sources, is_live, live_source
from entitysam.serve.workspace import NotFoundError, Workspace


@pytest.fixture
def folder(tmp_path):
    for name in ("b.mp4", "deep/a.MKV", "notes.txt", ".hidden.mp4", ".git/c.mp4"):
        (tmp_path / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / name).touch()
    (tmp_path / "secret.mp4").touch()
    (tmp_path / "videos" / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    (tmp_path / "videos" / "outside").symlink_to(tmp_path)
    return tmp_path / "videos"


def test_a_folder_is_offered_by_name_and_nothing_else_is_reached(folder):
    sources = Sources([Source("b.mp4", "/other/b.mp4")], folder)
    assert [(s.name, s.address) for s in sources] == [
        ("b.mp4", "/other/b.mp4"), ("deep/a.MKV", str(folder / "deep/a.MKV"))]  # fmt: skip
    for name in ("../secret.mp4", "deep/../b.mp4", str(folder / "deep/a.MKV"), "link.mp4", "outside/secret.mp4",
                 ".hidden.mp4", "notes.txt", "", "\0"):  # fmt: skip
        with pytest.raises(NotFoundError):
            sources.find(name, is_live=False)
    (folder / "new.webm").touch()
    assert sources.find("new.webm", is_live=False).address == str(folder / "new.webm")
    with pytest.raises(NotFoundError):
        sources.find("new.webm", is_live=True)


def test_what_cannot_be_offered_is_one_line(folder):
    with pytest.raises(InputError, match="two sources have the name 'a'"):
        Sources([Source("a", "/x/a"), Source("a", "/y/a")])
    with pytest.raises(InputError, match="none: no such folder"):
        Sources(folder=folder / "none")


def test_names_of_streams_have_no_passwords():
    assert live_source("rtsp://user:p@ss@host:554/live?token=1") == Source(
        "rtsp://host:554/live", "rtsp://user:p@ss@host:554/live?token=1", True
    )
    assert live_source("0").name == "camera 0"


def test_words_of_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("result/tracks.json", "result/sheet.png", "images/0.png", "clip.mp4", "1"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    results, sources = split(["result", "images", "clip.mp4", "1", "2", "rtsp://h/x", "missing"])
    assert [path.name for path in results] == ["result", "missing"]
    assert [(source.name, source.is_live) for source in sources] == [
        ("images", False), ("clip.mp4", False), ("1", False), ("camera 2", True), ("rtsp://h/x", True)]  # fmt: skip
    assert not is_live("1")  # a file of that name


def test_a_server_that_starts_again_has_what_the_command_line_named(tmp_path):
    clip = write_result(tmp_path / "clip", *moving_squares(3, (24, 32))) / "clip.mp4"
    studio = Studio(tmp_path / "work")
    for tab, origin in ((None, identity_of(clip)), ("a1" * 16, identity_of(clip.parent))):
        write_result(studio.new_folder("my clip.mp4", tab, origin) / "result", *moving_squares(3, (24, 32)))
    assert not studio.knows(identity_of(clip))
    workspace = Workspace()
    studio.reopen(workspace)
    assert [entry.title for entry in workspace.visible("0" * 32)] == ["my clip"]
    assert [entry.title for entry in workspace.visible("a1" * 16)] == ["my clip"] * 2
    assert studio.knows(identity_of(clip))
    clip.write_bytes(clip.read_bytes() + b"x")  # another file under the same name
    assert not studio.knows(identity_of(clip))
    workspace.close()
