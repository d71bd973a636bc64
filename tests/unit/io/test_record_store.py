"""Records of a resumable run: keys, fingerprints, damaged files, full disks."""

import errno
import json
import os
from pathlib import Path

import pytest

from entitysam.errors import ConfigError
from entitysam.io.files import OutputError
from entitysam.io.record_store import FINGERPRINT, RecordStore, file_fingerprint, file_stem

KEYS = ["a", "A", "frame_00000001", "x/y", "x_y", "../up", "", "é", "z" * 500, "z" * 499, "con.txt", "1\n2"]


def test_every_key_has_its_own_record(tmp_path):
    store = RecordStore(tmp_path)
    for number, key in enumerate(KEYS):
        store.write(key, bytes([number]) * number)
    assert [store.read(key) for key in KEYS] == [bytes([number]) * number for number in range(len(KEYS))]
    assert len(store) == len(KEYS)
    assert len({file_stem(key).lower() for key in KEYS}) == len(KEYS)
    assert all(path.parent == tmp_path for path in tmp_path.rglob("*.rec"))


def test_a_record_is_replaced_whole(tmp_path):
    store = RecordStore(tmp_path)
    store.write_json("a", {"one": [1, 2.5, None]})
    store.write_json("a", {"two": 2})
    assert RecordStore(tmp_path).read_json("a") == {"two": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["a.rec"]


def test_a_torn_or_foreign_record_counts_as_absent(tmp_path):
    store = RecordStore(tmp_path)
    store.write("a", b"payload")
    path = tmp_path / "a.rec"
    whole = path.read_bytes()
    for damaged in (b"", whole[:5], whole[:-1], whole + b"x", whole[:-1] + b"X", b"XXXX" + whole[4:]):
        path.write_bytes(damaged)
        assert store.read("a") is None
    (tmp_path / "b.rec").write_bytes(whole)  # the record of another key
    assert store.read("b") is None
    path.write_bytes(whole)
    assert store.read("a") == b"payload"
    assert store.read("c") is None


def test_resume_keeps_the_records_of_the_same_run_alone(tmp_path):
    fingerprint = {"input": ["clip.mp4", 7], "settings": {"threshold": 0.05}}
    first = RecordStore.start(tmp_path, fingerprint, resume=True)
    assert not first.continues
    first.write("a", b"1")
    again = RecordStore.start(tmp_path, fingerprint, resume=True)
    assert again.continues
    assert again.read("a") == b"1"
    with pytest.raises(ConfigError, match=r"cannot resume, .* \(settings.threshold was 0.05, is 0.1\)"):
        RecordStore.start(tmp_path, {**fingerprint, "settings": {"threshold": 0.1}}, resume=True)
    assert again.read("a") == b"1"
    fresh = RecordStore.start(tmp_path, fingerprint, resume=False)
    assert not fresh.continues
    assert fresh.read("a") is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "run.json is damaged"),
        ("[" * 10000, "run.json is damaged"),
        ("[]", "another version"),
        (json.dumps({"input": 1}), "another version"),
    ],
)
def test_an_odd_fingerprint_is_refused_in_one_line(tmp_path, content, message):
    (tmp_path / FINGERPRINT).write_text(content)
    with pytest.raises(ConfigError, match=message) as error:
        RecordStore.start(tmp_path, {"input": 1}, resume=True)
    assert "\n" not in str(error.value)
    assert "start without --resume" in str(error.value)


def test_a_full_disk_names_the_file_and_leaves_nothing(tmp_path, monkeypatch):
    store = RecordStore(tmp_path)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match=r"a\.rec: cannot be written \(No space left on device\)"):
        store.write("a", b"1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_write_to_a_full_device(tmp_path, monkeypatch):
    """The error of the write itself, not of the rename."""
    store = RecordStore(tmp_path)
    write = Path.open
    monkeypatch.setattr(
        Path, "open", lambda self, *mode: write(Path("/dev/full") if "b.rec" in self.name else self, *mode)
    )
    with pytest.raises(OutputError, match=r"b\.rec: cannot be written \(No space left on device\)"):
        store.write("b", b"1" * 100000)
    assert list(tmp_path.iterdir()) == []


def test_fingerprints_of_files(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("1")
    before = file_fingerprint(path)
    assert before == file_fingerprint(str(path))
    assert before != file_fingerprint(tmp_path)
    path.write_text("22")
    assert file_fingerprint(path) != before
    assert file_fingerprint("rtsp://camera") == ["rtsp://camera"]
