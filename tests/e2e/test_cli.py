"""`entitysam segment` end to end on a small clip with a small random model."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from entitysam.cli import main
from entitysam.cli.shared.models import open_model
from entitysam.cli.shared.progress import FrameBar
from entitysam.inference.segmenter import VideoSegmenter
from entitysam.io.id_maps import read_ids
from entitysam.io.readers.source import open_frames
from entitysam.io.writers.video import VideoWriter
from entitysam.ops import rle_decode

ROOT = Path(__file__).parents[2]
BEDROOM = ROOT / ".." / "shared" / "data" / "sam2_demo_clips" / "bedroom.mp4"
WIDTH, HEIGHT, FRAMES = 96, 64, 7
# Random weights find next to nothing at the usual thresholds; at 0 every query may show.
SMALL = ["--model", "tiny_scratch", "--weights", "random", "--image-size", "64", "--device", "cpu", "--quiet"]
SMALL += ["--threshold", "0", "--warmup-frames", "1", "model.num_entities=6", "inference.overlap_threshold=0"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "square.mp4"
    noise = np.random.default_rng(0).integers(60, 120, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    with VideoWriter(path, WIDTH, HEIGHT, 12.0) as writer:
        for index in range(FRAMES):
            frame = noise.copy()
            frame[16:48, 8 + 6 * index : 40 + 6 * index] = (230, 40, 40)
            writer.add(frame)
    return path


@pytest.fixture(scope="module")
def offline(clip, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("offline") / "result"
    assert main(["segment", str(clip), "-o", str(out), *SMALL]) == 0
    return out


@pytest.fixture(scope="module")
def online(clip, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("online") / "result"
    assert main(["segment", str(clip), "-o", str(out), "--online", *SMALL]) == 0
    return out


def masks_of(out: Path) -> np.ndarray:
    return np.stack([read_ids(path) for path in sorted((out / "masks").iterdir())])


def assert_same_results(a: Path, b: Path) -> None:
    files = sorted(p.relative_to(a) for p in a.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(b) for p in b.rglob("*") if p.is_file())
    for file in files:
        if file.suffix != ".mp4":
            assert (a / file).read_bytes() == (b / file).read_bytes(), file
    # The encoder does not always give the same bytes for the same images.
    ours, theirs = frames_of(a / "overlay.mp4"), frames_of(b / "overlay.mp4")
    assert ours.shape == theirs.shape
    assert np.abs(ours.astype(int) - theirs).mean() < 8  # other ids would be other colours: tens of grey levels


def frames_of(video: Path) -> np.ndarray:
    with open_frames(video) as source:
        return np.stack(list(source))


def small_segmenter() -> VideoSegmenter:
    model = open_model("tiny_scratch", "random", "cpu", {"num_entities": 6, "image_size": 64}).model
    return VideoSegmenter(model, warmup_frames=1, score_threshold=0.0, overlap_threshold=0.0)


def test_offline_masks_are_those_of_the_python_api(clip, offline):
    with open_frames(clip) as source:
        expected = small_segmenter().segment(source)
    np.testing.assert_array_equal(masks_of(offline), expected.ids)
    assert len(np.unique(expected.ids)) > 2  # the test would say little about an empty result
    tracks = json.loads((offline / "tracks.json").read_text())["tracks"]
    for track in tracks:
        assert track["score"] == pytest.approx(float(expected.scores[track["id"] - 1]), abs=1e-6)


def test_online_masks_are_those_of_the_python_api(clip, online):
    with open_frames(clip) as source:
        expected = [(r.ids, r.scores, r.events) for r in small_segmenter().stream(source)]
    np.testing.assert_array_equal(masks_of(online), np.stack([ids for ids, _, _ in expected]))
    written = json.loads((online / "events.json").read_text())["events"]
    assert written == [
        {"frame": t, "kind": e.kind, "id": e.id} for t, (_, _, events) in enumerate(expected) for e in events
    ]
    assert any(event["kind"] == "born" for event in written)
    last = {key: value for _, scores, _ in expected for key, value in scores.items()}
    for track in json.loads((online / "tracks.json").read_text())["tracks"]:
        assert track["score"] == pytest.approx(last[track["id"]], abs=1e-6)


@pytest.mark.parametrize("kind", ["offline", "online"])
def test_files_agree_with_each_other(kind, request):
    out = request.getfixturevalue(kind)
    masks = masks_of(out)
    assert masks.shape == (FRAMES, HEIGHT, WIDTH)
    (video,) = json.loads((out / "segments.json").read_text())["annotations"]
    assert video["video_id"] == "square"
    for index, frame in enumerate(video["annotations"]):
        assert frame["file_name"] == f"{index:05d}.png"
        areas = {segment["id"]: segment["area"] for segment in frame["segments_info"]}
        assert areas == {int(i): int((masks[index] == i).sum()) for i in np.unique(masks[index]) if i}
    tracks = json.loads((out / "tracks.json").read_text())
    assert [track["id"] for track in tracks["tracks"]] == [int(i) for i in np.unique(masks) if i]
    for track in tracks["tracks"]:
        visible = np.flatnonzero((masks == track["id"]).any((1, 2))).tolist()
        assert [record["frame"] for record in track["frames"]] == visible
        assert (track["first_frame"], track["last_frame"]) == (visible[0], visible[-1])
        for record in track["frames"]:
            np.testing.assert_array_equal(rle_decode(record["segmentation"]), masks[record["frame"]] == track["id"])
    with av.open(out / "overlay.mp4") as overlay:
        assert len(list(overlay.decode(video=0))) == FRAMES
        assert float(overlay.streams.video[0].average_rate) == 12.0
    assert Image.open(out / "contact_sheet.png").size > (4 * WIDTH, 4 * HEIGHT)
    assert not (out / ".resume").exists()


def interrupt_after(monkeypatch, frames: int, number: int = signal.SIGINT) -> None:
    """Sends this process a signal while the given number of frames is done."""
    step = FrameBar.step
    done = 0

    def step_and_interrupt(self, *arguments):
        nonlocal done
        step(self, *arguments)
        done += 1
        if done == frames:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(FrameBar, "step", step_and_interrupt)


@pytest.fixture(autouse=True)
def ctrl_c_interrupts():
    """Restores Ctrl-C: Python ignores it when a shell starts it in the background."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.mark.parametrize("frames", [3, FRAMES + 3])
def test_offline_run_interrupted_and_resumed_gives_the_same(clip, offline, tmp_path, monkeypatch, capsys, frames):
    """Interrupted in the first pass (network) or the second (drawing)."""
    out = tmp_path / "result"
    command = ["segment", str(clip), "-o", str(out), *SMALL]
    with monkeypatch.context() as patch:
        interrupt_after(patch, frames)
        assert main(command) == 130
    errors = capsys.readouterr().err
    assert "--resume continues" in errors
    assert "Traceback" not in errors
    assert not (out / "segments.json").exists()
    assert not (out / "overlay.mp4").exists()
    steps = count_steps(monkeypatch)
    assert main([*command, "--resume"]) == 0
    assert steps["network"] == max(FRAMES - frames, 0)
    assert_same_results(out, offline)


def count_steps(monkeypatch) -> dict[str, int]:
    """Counts the frames that pass through the network."""
    steps = {"network": 0}
    passes = VideoSegmenter._passes

    def counted(self, *arguments, **options):
        steps["network"] += 1
        return passes(self, *arguments, **options)

    monkeypatch.setattr(VideoSegmenter, "_passes", counted)
    return steps


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_online_run_interrupted_and_resumed_gives_the_same(clip, online, tmp_path, monkeypatch, number):
    out = tmp_path / "result"
    command = ["segment", str(clip), "-o", str(out), "--online", *SMALL]
    with monkeypatch.context() as patch:
        interrupt_after(patch, 4, number)
        assert main(command) == 128 + number
    np.testing.assert_array_equal(masks_of(out), masks_of(online)[:4])
    steps = count_steps(monkeypatch)
    assert main([*command, "--resume"]) == 0
    assert steps["network"] <= FRAMES - 3
    assert_same_results(out, online)


def test_resume_refuses_another_run_and_a_fresh_start_forgets_it(clip, offline, tmp_path, monkeypatch, capsys):
    out = tmp_path / "result"
    command = ["segment", str(clip), "-o", str(out), *SMALL]
    with monkeypatch.context() as patch:
        interrupt_after(patch, FRAMES + 4)
        assert main(command) == 130
    assert main([*command, "--resume", "--stride", "2"]) == 2
    assert "stride was 1, is 2" in capsys.readouterr().err
    assert main([*command, "--resume", "--fast", "1"]) == 2
    assert "inference.fast was 0, is 1" in capsys.readouterr().err
    assert main([*command, "--stride", "4"]) == 0  # fewer masks than the unfinished run had written
    assert sorted(path.name for path in (out / "masks").iterdir()) == ["00000.png", "00004.png"]
    assert main([*command, "--resume"]) == 0
    assert_same_results(out, offline)


class FakeCamera:
    """Stands in for `cv2.VideoCapture`: never ends."""

    def __init__(self, index):
        self.image = np.random.default_rng(index).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)

    def isOpened(self):
        return True

    def get(self, _):
        return 25.0

    def grab(self):
        return True

    def retrieve(self):
        return True, self.image

    def read(self):
        return True, self.image

    def release(self):
        pass


def test_a_camera_is_segmented_online_until_ctrl_c(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cv2, "VideoCapture", FakeCamera)
    monkeypatch.chdir(tmp_path)
    interrupt_after(monkeypatch, 3)
    assert main(["segment", "0", "-o", "camera", "--drop-stale", *SMALL]) == 0
    assert "3 frames" in capsys.readouterr().out
    assert masks_of(tmp_path / "camera").shape == (3, HEIGHT, WIDTH)
    assert (tmp_path / "camera" / "overlay.mp4").is_file()
    assert main(["segment", "0", "-o", "camera", "--resume", *SMALL]) == 2
    assert "cannot be resumed" in capsys.readouterr().err


def test_folder_stride_and_names(tmp_path, capsys):
    for number in (1, 2, 10, 20):
        image = np.full((40, 50, 3), number * 10, np.uint8)
        Image.fromarray(image).save(tmp_path / f"img{number}.jpg")
    assert main(["segment", str(tmp_path), "-o", str(tmp_path / "out"), "--stride", "2", *SMALL]) == 0
    assert sorted(path.name for path in (tmp_path / "out" / "masks").iterdir()) == ["img1.png", "img10.png"]
    captured = capsys.readouterr()
    assert captured.out.startswith("2 frames, ")
    assert captured.out.count("\n") == 1
    assert "random weights" in captured.err


def test_a_truncated_video_is_segmented_as_far_as_it_decodes(clip, tmp_path, capsys):
    path = tmp_path / "cut.mp4"
    data = clip.read_bytes()
    path.write_bytes(data[: int(len(data) * 0.9)])
    assert main(["segment", str(path), "-o", str(tmp_path / "out"), *SMALL]) == 0
    decoded = len(list((tmp_path / "out" / "masks").iterdir()))
    assert 0 < decoded < FRAMES
    assert f"cut.mp4: {FRAMES - decoded} of {FRAMES} frames could not be decoded" in capsys.readouterr().err


def test_an_error_on_the_way_is_a_runtime_error_and_leaves_nothing(clip, tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise RuntimeError("the device\nis on fire")

    monkeypatch.setattr(VideoSegmenter, "_passes", fail)
    assert main(["segment", str(clip), "-o", str(tmp_path / "out"), *SMALL]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "entitysam: error: RuntimeError: the device is on fire (--debug shows where)"
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not BEDROOM.is_file(), reason=f"real clip not there: {BEDROOM}")
def test_a_real_clip(tmp_path, capsys):
    out = tmp_path / "bedroom"
    assert main(["segment", str(BEDROOM), "-o", str(out), "--max-frames", "3", *SMALL]) == 0
    assert masks_of(out).shape == (3, 540, 960)
    assert str(out) in capsys.readouterr().out


def test_the_console_script(clip, tmp_path):
    """Through real processes: progress on stderr, one line on stdout, exit codes, no traceback."""
    script = Path(sys.executable).with_name("entitysam")
    loud = [word for word in SMALL if word != "--quiet"]
    done = subprocess.run(
        [script, "segment", clip, "-o", tmp_path / "out", "--max-frames", "2", *loud], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2 frames, ")
    assert "2/2" in done.stderr
    assert (tmp_path / "out" / "overlay.mp4").is_file()
    failed = subprocess.run([script, "segment", "nowhere.mp4"], capture_output=True, text=True)
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr == "entitysam: error: nowhere.mp4: no such file or folder\n"
    module = subprocess.run(
        [sys.executable, "-m", "entitysam", "segment", "nowhere.mp4"], capture_output=True, text=True
    )
    assert (module.returncode, module.stderr) == (2, failed.stderr)
