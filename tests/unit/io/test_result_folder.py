"""Result folders: default names, whose files are whose, inputs that are never overwritten, one run at a time."""

import json
import os
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from entitysam.io.files import OutputError
from entitysam.io.readers.base import InputError
from entitysam.io.readers.memory import MemoryDecoder
from entitysam.io.readers.source import FrameSource, open_frames
from entitysam.io.result_folder import (
    SEGMENT_FILES,
    TRACK_FILES,
    claim_folder,
    listed_masks,
    origin_of,
    read_earlier,
    recorded_origin,
    remove_results,
    source_name,
)
from entitysam.io.writers.segments import ResultWriter
from entitysam.io.writers.tracks import TrackWriter
from entitysam.structures import Detections

FRAME = np.full((16, 24, 3), 90, np.uint8)


def write_images(folder, count=2, pattern="{}.jpg"):
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        Image.fromarray(FRAME).save(folder / pattern.format(index))
    return folder


def write_segments(folder, source=None, frames=("00000", "00001"), other_files=()):
    with ResultWriter(folder, "clip", 24, 16, None, source, other_files=other_files) as writer:
        for name in frames:
            writer.add(name, FRAME, np.ones((16, 24), np.int32), {1: 0.5})
        writer.finish({1: 0.5})
    return folder


@contextmanager
def claim(out, source, files=SEGMENT_FILES, inputs=()):
    with (
        open_frames(source) as frames,
        claim_folder(out, files, frames, str(source), origin_of(str(source), 1, None), inputs),
    ):
        yield


def refused(out, source, message, **options):
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(OutputError, match=message), claim(out, source, **options):
        pass
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_names_of_inputs(tmp_path, monkeypatch):
    for folder in ("a", "b.c", "[set 1]"):
        write_images(tmp_path / folder)
    (tmp_path / "a" / "my.clip.mp4").touch()
    monkeypatch.chdir(tmp_path / "a")
    names = {
        "my.clip.mp4": "my.clip",
        "*.jpg": "a",
        "../b.c/*.jpg": "b.c",
        "../b.c/left_*.png": "b.c_left",
        "../[set 1]/*.jpg": "[set 1]",
        "../b.c": "b.c",
        ".": "a",
        "..": tmp_path.name,
        "0": "0",
        "rtsp://host/stream.sdp?x=1": "stream",
    }
    assert {source: source_name(source) for source in names} == names


def test_an_input_is_never_overwritten(tmp_path):
    video = tmp_path / "overlay.mp4"
    write_images(tmp_path, 1, "overlay.mp4.jpg")
    with FrameSource(MemoryDecoder([FRAME])) as frames:
        frames.files = [video]
        video.write_bytes(b"mine")
        with (
            pytest.raises(OutputError, match=r"overlay\.mp4: is an input"),
            claim_folder(tmp_path, SEGMENT_FILES, frames, str(video), None),
        ):
            pass
    out = write_segments(tmp_path / "out")
    refused(out, out / "masks", r"masks/00000\.png: is an input")
    (tmp_path / "link").symlink_to(out / "masks")
    refused(out, tmp_path / "link", r"masks/00000\.png: is an input")
    frames = write_images(tmp_path / "frames")
    tracks = tmp_path / "out2" / "tracks.txt"
    tracks.parent.mkdir()
    tracks.write_text("1,1,0,0,1,1,1,-1,-1,-1\n")
    refused(tracks.parent, frames, r"tracks\.txt: is an input", files=TRACK_FILES, inputs=[tracks])


def test_files_that_no_run_wrote_are_not_replaced(tmp_path):
    frames, out = write_images(tmp_path / "frames"), tmp_path / "out"
    (out / "masks").mkdir(parents=True)
    (out / "masks" / "1.png").write_bytes(b"mine")
    refused(out, frames, r"masks/1\.png: exists and was not written by an earlier run")
    (out / "masks" / "1.png").rename(out / "masks" / "mine.png")
    with claim(out, frames):
        pass
    (out / "contact_sheet.png").write_bytes(b"mine")
    refused(out, frames, r"contact_sheet\.png: exists and was not written")
    assert (out / "masks" / "mine.png").read_bytes() == b"mine"


def test_the_result_of_another_source_is_not_replaced(tmp_path):
    first, second = write_images(tmp_path / "a"), write_images(tmp_path / "b")
    out = write_segments(tmp_path / "out", origin_of(str(first), 1, None))
    refused(out, second, f"holds the result of {first}")
    with claim(out, first):
        remove_results(out)
    assert [path.name for path in out.iterdir()] == ["masks"]
    (out / "panoptic.json").touch()
    refused(out, first, "segment-image")


def test_a_folder_of_frames_gets_no_results_between_its_frames(tmp_path):
    frames = write_images(tmp_path / "frames", pattern="{}.png")
    refused(frames, frames, "would read the images of the result as frames")
    for pattern in ("*.png", "c*.png", "[a-z]*.png"):
        Image.fromarray(FRAME).save(frames / "c.png")
        refused(frames, frames / pattern, "would read the images")
    refused(frames, str(tmp_path) + "/**/*.png", "would read the images")
    with claim(frames, frames / "?.png"):
        pass
    with claim(frames / "out", frames):
        pass
    assert not (frames / "out").exists()


def test_a_second_run_into_a_folder_is_refused_with_the_first_ones_process(tmp_path):
    frames, out = write_images(tmp_path / "frames"), tmp_path / "out"
    with claim(out, frames):
        with pytest.raises(OutputError, match=rf"another run \(process {os.getpid()}\)"), claim(out, frames):
            pass
        (out / "kept").touch()
    assert [path.name for path in out.iterdir()] == ["kept"]
    (out / ".lock").write_text("123456")  # of a process that was killed
    with claim(out, frames):
        assert (out / ".lock").read_text() == str(os.getpid())


def test_a_folder_holds_the_files_of_one_run(tmp_path):
    objects = Detections.of(np.array([[0.0, 0.0, 9.0, 9.0]]))
    write_segments(tmp_path, other_files=["events.json", "shown.jpg"])
    (tmp_path / "events.json").write_text("{}")
    (tmp_path / "shown.jpg").write_text("")
    (tmp_path / "notes.txt").write_text("mine")
    with TrackWriter(tmp_path, "clip", 24, 16, None) as writer:
        writer.add("00000", FRAME, np.array([7]), objects, [])
        writer.finish()
    tracked = {"overlay.mp4", "tracks.json", "tracks.txt", "events.json", "contact_sheet.png", "notes.txt"}
    assert set(os.listdir(tmp_path)) == tracked
    remove_results(tmp_path)
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_files_of_others_under_our_names_stay(tmp_path):
    """A segment result does not list `tracks.txt`: one that lies there is the user's."""
    write_segments(tmp_path)
    (tmp_path / "tracks.txt").write_text("mine")
    remove_results(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["masks", "tracks.txt"]
    hostile = {"video_id": "x", "frames": [], "files": ["notes.txt", "../notes.txt"]}
    (tmp_path / "tracks.json").write_text(json.dumps(hostile)[:-1] + ', "tracks": [\n]}\n')
    (tmp_path / "notes.txt").write_text("mine")
    assert [path.name for path in read_earlier(tmp_path).files] == ["tracks.json"]
    (tmp_path / "segments.json").write_text('{"annotations": [{"annotations": [{"file_name": "../../notes.png"}]}]}')
    assert listed_masks(tmp_path / "segments.json") == ["notes.png"]  # of masks/


def test_masks_of_an_interrupted_run_are_known_although_its_last_line_is_cut_off(tmp_path):
    with ResultWriter(tmp_path, "clip", 24, 16, None) as writer:
        for name in ("a", "b"):
            writer.add(name, FRAME, np.ones((16, 24), np.int32), {1: 0.5})
    with (tmp_path / "segments.jsonl").open("a") as file:
        file.write('{"file_name": "c.p')
    assert listed_masks(tmp_path / "segments.json") == ["a.png", "b.png"]
    assert {path.name for path in read_earlier(tmp_path).files} == {"a.png", "b.png", "segments.jsonl"}
    with ResultWriter(tmp_path, "clip", 24, 16, None, finished=1) as writer:  # resumed, and interrupted again
        assert (tmp_path / "segments.jsonl").read_text().count("\n") == 1
    assert os.listdir(tmp_path / "masks") == ["a.png"]  # no mask without a line
    write_segments(tmp_path, frames=["a", "b", "c"])
    (video,) = json.loads((tmp_path / "segments.json").read_text())["annotations"]
    assert [frame["file_name"] for frame in video["annotations"]] == ["a.png", "b.png", "c.png"]


def test_lines_of_others_stay(tmp_path):
    for text in ("", "mine\n", '{"rows": 1}\n', "[1]\n"):
        (tmp_path / "segments.jsonl").write_text(text)
        remove_results(tmp_path)
        assert (tmp_path / "segments.jsonl").read_text() == text
        frames = write_images(tmp_path.parent / f"{tmp_path.name} frames")
        refused(tmp_path, frames, r"segments\.jsonl: exists and was not written by an earlier run")


@pytest.mark.parametrize(
    "source",
    ["http://host/clip.mp4", "file:///etc/passwd", "0", "/not/there.mp4", "rtsp://cam", 0, None, ["a"], "a\0b"],
)
def test_the_recorded_source_of_a_result_must_be_a_local_file(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="its frames are not in the local file or folder"):
        recorded_origin(tmp_path, {"source": {"source": source}})


def test_a_recorded_source_opens_the_frames(tmp_path):
    frames = write_images(tmp_path / "frames", 3)
    for source, stride in [(str(frames), 2), (str(frames / "*.jpg"), 1)]:
        head = {"source": {**origin_of(source, stride, None), "drop_stale": True}}
        assert recorded_origin(tmp_path, head) == origin_of(source, stride, None)
    assert recorded_origin(tmp_path, {}) is None
