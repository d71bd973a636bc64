"""Result folders: round trips of ids, JSON and video; nothing half-written."""

import json
import os
import resource
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from entitysam.io.files import OutputError, as_stem, check_folder, make_folder, whole_file
from entitysam.io.id_maps import read_ids, write_ids
from entitysam.io.paths import UnsafePathError
from entitysam.io.result_folder import remove_results
from entitysam.io.writers import video as writers_video
from entitysam.io.writers.annotations import describe_entities
from entitysam.io.writers.segments import ResultWriter
from entitysam.io.writers.video import VideoWriter, find_encoder
from entitysam.ops import rle_decode

WIDTH, HEIGHT = 65, 47


def frame_and_ids(index: int) -> tuple[np.ndarray, np.ndarray]:
    """A square (id 3) that moves right, another (id 1) from frame 2 on, and one pixel of id 70000 on frame 4."""
    frame = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
    ids = np.zeros((HEIGHT, WIDTH), np.int32)
    ids[5:25, 2 + 3 * index : 22 + 3 * index] = 3
    if index >= 2:
        ids[30:, :10] = 1
    frame[ids > 0] = 200
    return frame, ids


def write_result(folder, count=6) -> ResultWriter:
    with ResultWriter(folder, "my clip", WIDTH, HEIGHT, fps=5.0) as writer:
        for index in range(count):
            writer.add(f"{index:05d}", *frame_and_ids(index), {3: 0.5 + 0.05 * index, 1: 0.25})
        result = writer.finish({1: 0.25, 3: 0.625, 9: 0.9})
    assert (result.num_frames, result.num_entities, result.warnings) == (count, 2, [])
    return writer


def test_ids_round_trip(tmp_path):
    ids = np.array([[0, 1, 255, 256], [65535, 65536, 70000, 2**24 - 1]], np.int32)
    write_ids(tmp_path / "ids.png", ids)
    np.testing.assert_array_equal(read_ids(tmp_path / "ids.png"), ids)
    red, green, blue = np.asarray(Image.open(tmp_path / "ids.png"))[1, 2].tolist()
    assert red + 256 * green + 65536 * blue == 70000


def test_describe_entities_against_brute_force():
    ids = np.random.default_rng(0).choice([0, 2, 5, 11], (30, 40)).astype(np.int32)
    ids[:, :7][ids[:, :7] == 5] = 0
    found = describe_entities(ids)
    assert [e["id"] for e in found] == [2, 5, 11]
    for entity in found:
        rows, columns = np.nonzero(ids == entity["id"])
        x, y, width, height = entity["bbox"]
        assert (x, x + width - 1, y, y + height - 1) == (columns.min(), columns.max(), rows.min(), rows.max())
        assert entity["area"] == len(rows)
        np.testing.assert_array_equal(rle_decode(entity["segmentation"]), ids == entity["id"])
    assert describe_entities(np.zeros((3, 3), np.int32)) == []


def test_result_folder(tmp_path):
    write_result(tmp_path)
    names = ["contact_sheet.png", "masks", "overlay.mp4", "segments.json", "segments.jsonl", "tracks.json"]
    assert sorted(os.listdir(tmp_path)) == names
    assert sorted(os.listdir(tmp_path / "masks")) == [f"{i:05d}.png" for i in range(6)]
    for index in range(6):
        np.testing.assert_array_equal(read_ids(tmp_path / "masks" / f"{index:05d}.png"), frame_and_ids(index)[1])
    assert Image.open(tmp_path / "contact_sheet.png").width > 4 * WIDTH


def test_segments_json(tmp_path):
    write_result(tmp_path)
    segments = json.loads((tmp_path / "segments.json").read_text())
    (video,) = segments["annotations"]
    assert video["video_id"] == "my clip"
    assert [frame["file_name"] for frame in video["annotations"]] == [f"{i:05d}.png" for i in range(6)]
    assert [len(frame["segments_info"]) for frame in video["annotations"]] == [1, 1, 2, 2, 2, 2]
    first, second = video["annotations"][2]["segments_info"]
    assert second == {"id": 3, "category_id": 1, "bbox": [8, 5, 20, 20], "area": 400, "iscrowd": 0}
    assert first == {"id": 1, "category_id": 1, "bbox": [0, 30, 10, 17], "area": 170, "iscrowd": 0}


def test_tracks_json(tmp_path):
    write_result(tmp_path)
    tracks = json.loads((tmp_path / "tracks.json").read_text())
    assert (tracks["video_id"], tracks["width"], tracks["height"], tracks["fps"]) == ("my clip", WIDTH, HEIGHT, 5.0)
    assert tracks["frames"] == [f"{i:05d}" for i in range(6)]
    one, three = tracks["tracks"]
    assert (one["id"], one["score"], one["first_frame"], one["last_frame"]) == (1, 0.25, 2, 5)
    assert (three["id"], three["score"], three["first_frame"], three["last_frame"]) == (3, 0.625, 0, 5)
    assert [record["frame"] for record in one["frames"]] == [2, 3, 4, 5]
    for record in three["frames"]:
        ids = frame_and_ids(record["frame"])[1]
        np.testing.assert_array_equal(rle_decode(record["segmentation"]), ids == 3)
        assert record["bbox"] == [2 + 3 * record["frame"], 5, 20, 20]
        assert record["area"] == 400
        assert record["score"] == pytest.approx(0.5 + 0.05 * record["frame"])


def test_a_result_without_entities(tmp_path):
    with ResultWriter(tmp_path, "empty", WIDTH, HEIGHT, None) as writer:
        writer.add("a", frame_and_ids(0)[0], np.zeros((HEIGHT, WIDTH), np.int32), {})
        assert writer.finish({}).num_entities == 0
    assert json.loads((tmp_path / "tracks.json").read_text())["tracks"] == []
    frames = json.loads((tmp_path / "segments.json").read_text())["annotations"][0]["annotations"]
    assert frames == [{"file_name": "a.png", "segments_info": []}]


def test_overlay_plays_in_browsers(tmp_path):
    """H.264, yuv420p, even size, every frame, the index before the frames."""
    write_result(tmp_path)
    data = (tmp_path / "overlay.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(tmp_path / "overlay.mp4") as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height) == (WIDTH + 1, HEIGHT + 1)
        assert float(stream.average_rate) == 5.0
    assert len(frames) == 6
    shown = frames[5].to_ndarray(format="rgb24").astype(int)
    np.testing.assert_allclose(shown[2, 5], 60, atol=6)  # background keeps its colour
    assert np.ptp(shown[12, 30]) > 40  # the entity is tinted


@pytest.mark.parametrize(("width", "height"), [(1, 1), (6, 3), (64, 48), (4001, 30)])
def test_videos_of_any_size(tmp_path, width, height):
    with VideoWriter(tmp_path / "v.mp4", width, height, 29.97) as writer:
        for value in (0, 100, 200):
            writer.add(np.full((height, width, 3), value, np.uint8))
    with av.open(tmp_path / "v.mp4") as container:
        frames = list(container.decode(video=0))
        assert float(container.streams.video[0].average_rate) == pytest.approx(29.97, abs=0.01)
    assert len(frames) == 3
    assert frames[0].width % 2 == frames[0].height % 2 == 0
    assert abs(frames[0].width - min(width, 3840)) <= 1
    np.testing.assert_allclose(frames[2].to_ndarray(format="rgb24"), 200, atol=4)


def test_without_an_h264_encoder_the_video_is_mpeg4_and_says_so(tmp_path, monkeypatch):
    assert find_encoder() in writers_video.H264_ENCODERS
    monkeypatch.setattr(writers_video, "H264_ENCODERS", ("no-such-encoder",))
    with VideoWriter(tmp_path / "v.mp4", 64, 48) as writer:
        writer.add(np.zeros((48, 64, 3), np.uint8))
    assert "browsers may not play" in writer.warning
    with av.open(tmp_path / "v.mp4") as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"


def test_a_frame_of_another_size_is_refused(tmp_path):
    with pytest.raises(ValueError, match="65x47"), VideoWriter(tmp_path / "v.mp4", WIDTH, HEIGHT) as writer:
        writer.add(np.zeros((48, 64, 3), np.uint8))
    assert os.listdir(tmp_path) == []


def test_an_interrupted_run_leaves_its_masks_and_no_half_files(tmp_path):
    with ResultWriter(tmp_path, "clip", WIDTH, HEIGHT, None) as writer:
        for index in range(3):
            writer.add(f"{index:05d}", *frame_and_ids(index), {1: 0.5, 3: 0.5})
    visible = sorted(name for name in os.listdir(tmp_path) if not name.startswith("."))
    assert visible == ["masks", "segments.jsonl"]
    np.testing.assert_array_equal(read_ids(tmp_path / "masks" / "00002.png"), frame_and_ids(2)[1])
    remove_results(tmp_path)
    assert os.listdir(tmp_path) == ["masks"]
    assert os.listdir(tmp_path / "masks") == []


def test_remove_results_takes_only_what_a_run_wrote(tmp_path):
    write_result(tmp_path)
    (tmp_path / "masks" / "mine.png").write_bytes(b"mine")
    (tmp_path / "notes.txt").write_text("mine")
    remove_results(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["masks", "notes.txt"]
    assert os.listdir(tmp_path / "masks") == ["mine.png"]
    (tmp_path / "segments.json").write_text("not json")
    remove_results(tmp_path)


def test_whole_file_appears_only_when_whole(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail_halfway():
        with whole_file(target) as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]
    with whole_file(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"


def test_folders_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="cannot be written to"):
            make_folder(folder)
        with pytest.raises(OutputError, match="is not a folder"):
            check_folder(folder)
    assert check_folder(tmp_path / "new" / "below") == tmp_path / "new" / "below"
    assert os.listdir(tmp_path) == ["file"]
    with pytest.raises(OutputError, match=r"nowhere/ids\.png"):
        write_ids(tmp_path / "nowhere" / "ids.png", np.zeros((2, 2), np.int32))
    with pytest.raises(OutputError, match="cannot be written"):
        VideoWriter(tmp_path / "nowhere" / "v.mp4", 64, 48)


def test_names_become_stems():
    assert as_stem("00001") == "00001"
    assert as_stem("http://a/b?c") == "http___a_b_c"
    assert as_stem("") == "_"
    assert as_stem("..") == "_"


TIMES = [0.0, 0.05, 0.5, 0.55, 1.0, 3.0]


def test_times_of_frames_are_written_and_the_overlay_has_them(tmp_path):
    with ResultWriter(tmp_path, "clip", WIDTH, HEIGHT, fps=2.0) as writer:
        for index, time in enumerate(TIMES):
            writer.add(f"{index:05d}", *frame_and_ids(index), {1: 0.5, 3: 0.5}, time)
        writer.finish({1: 0.5, 3: 0.5})
    assert json.loads((tmp_path / "tracks.json").read_text())["times"] == TIMES
    (video,) = json.loads((tmp_path / "segments.json").read_text())["annotations"]
    assert [frame["time"] for frame in video["annotations"]] == TIMES
    with av.open(tmp_path / "overlay.mp4") as container:
        stream = container.streams.video[0]
        assert [frame.time for frame in container.decode(stream)] == pytest.approx(TIMES)
        assert float(stream.duration * stream.time_base) == pytest.approx(3.5, abs=0.01)  # the last frame lasts 1 / fps


def test_a_frame_rate_of_films_survives_times(tmp_path):
    with VideoWriter(tmp_path / "v.mp4", 64, 48, 29.97) as writer:
        for index in range(30):
            writer.add(np.zeros((48, 64, 3), np.uint8), index * 1001 / 30000)
    with av.open(tmp_path / "v.mp4") as container:
        assert container.streams.video[0].average_rate == Fraction(30000, 1001)


def test_a_folder_whose_name_looks_like_a_protocol(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_result(Path("run:1"))
    assert (tmp_path / "run:1" / "overlay.mp4").stat().st_size > 1000


def test_names_of_frames_stay_in_the_folder(tmp_path):
    victim = tmp_path / "victim.png"
    victim.write_bytes(b"mine")
    with (
        pytest.raises(UnsafePathError, match="leaves its folder"),
        ResultWriter(tmp_path / "out", "x", WIDTH, HEIGHT, None) as writer,
    ):
        writer.add("../../victim", *frame_and_ids(0), {3: 0.5})
    assert victim.read_bytes() == b"mine"


def test_temporary_files_are_not_written_through_links(tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    out = tmp_path / "out"
    out.mkdir()
    for name in (".overlay.mp4.part", ".tracks.json.part", ".contact_sheet.png.part"):
        (out / name).symlink_to(victim)
    write_result(out)
    assert victim.read_bytes() == b"mine"
    for name in ("segments.json", "segments.jsonl"):
        (out / name).unlink()
    (out / ".segments.jsonl.part").symlink_to(victim)
    write_result(out)
    assert victim.read_bytes() == b"mine"
    for name in ("segments.json", "segments.jsonl"):
        (out / name).unlink()
    (out / "segments.jsonl").symlink_to(victim)
    with pytest.raises(OutputError, match=r"segments\.json: cannot be written"):
        ResultWriter(out, "x", WIDTH, HEIGHT, None)
    assert victim.read_bytes() == b"mine"


@contextmanager
def file_size_limit(size: int):
    """No file of this process can grow beyond `size` bytes, as on a full disk."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)


def test_a_full_disk_is_named_and_leaves_no_half_files(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)

    def write_noise():
        with VideoWriter(tmp_path / "v.mp4", 64, 48) as video:
            for _ in range(200):
                video.add(noise)

    with file_size_limit(4000), pytest.raises(OutputError, match=r"v\.mp4: cannot be written"):
        write_noise()
    with file_size_limit(200), pytest.raises(OutputError, match=r"ids\.png: cannot be written"):
        write_ids(tmp_path / "ids.png", noise[..., 0].astype(np.int32) * 1000)
    with file_size_limit(500), pytest.raises(OutputError, match=r"segments\.json: cannot be written"):
        write_result(tmp_path / "out", 60)
    assert os.listdir(tmp_path) == ["out"]
    left = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file() and path.parent.name != "masks"}
    assert left == {"segments.jsonl"}
