"""entitysam track as a user runs it: detections of the synthetic videos, the tiny network, wrong input, a real clip."""

import json
import signal
from pathlib import Path

import av
import numpy as np
import pytest

from entitysam.cli import main
from entitysam.data.synthetic.writer import SyntheticSet, write_synthetic
from entitysam.masa.video import VideoTracker

REAL = Path(__file__).parents[2] / ".." / "shared" / "data" / "bdd100k_mots"
FILES = {"overlay.mp4", "tracks.json", "tracks.txt", "events.json", "contact_sheet.png"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A synthetic clip of 5 frames, its folder of images and a COCO file with its boxes."""
    folder = tmp_path_factory.mktemp("clip")
    nothing = {"train_images": 0, "val_images": 0, "train_videos": 0}
    write_synthetic(folder, SyntheticSet(**nothing, val_videos=1, val_frames=5, video_size=(48, 80)))
    index = json.loads((folder / "VIPSeg_720P" / "panoptic_gt_VIPSeg_val.json").read_text())
    frames = index["annotations"][0]["annotations"]
    images = [{"id": i, "file_name": frame["file_name"]} for i, frame in enumerate(frames)]
    annotations = [
        {"image_id": i, "bbox": segment["bbox"], "score": 0.9, "category_id": segment["category_id"]}
        for i, frame in enumerate(frames)
        for segment in frame["segments_info"]
    ]
    detections = folder / "found.json"
    detections.write_text(json.dumps({"images": images, "annotations": annotations}))
    return folder / "VIPSeg_720P" / "images" / "val_00000", detections, annotations


def track(*arguments):
    return main(["track", *map(str, arguments), "--device", "cpu", "-q"])


def tracks_of(out):
    return json.loads((out / "tracks.json").read_text())["tracks"]


def test_iou_needs_no_network(clip, tmp_path, capsys):
    frames, detections, annotations = clip
    assert track(frames, "--detections", detections, "--association", "iou", "-o", tmp_path / "out") == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    tracks = tracks_of(tmp_path / "out")
    assert sum(len(one["frames"]) for one in tracks) == len(annotations)
    assert f"5 frames, {len(tracks)} tracks" in capsys.readouterr().out
    assert any(len(one["frames"]) == 5 for one in tracks)


def test_the_network_with_detections_and_own_proposals(clip, tmp_path, capsys):
    frames, detections, annotations = clip
    words = (
        "--model",
        "masa_tiny",
        "--weights",
        "random",
        "--setting",
        "tao",
        "--stride",
        2,
        "--proposals",
        "fast",
        "tracker.gamma=0.5",
    )
    assert track(frames, "--detections", detections, *words, "-o", tmp_path / "out") == 0
    seen = sum(one["category_id"] > 0 for t in tracks_of(tmp_path / "out") for one in t["frames"])
    assert seen == sum(a["image_id"] % 2 == 0 and a["category_id"] > 0 for a in annotations)
    assert "random weights" in capsys.readouterr().err


def test_a_recording_without_a_duration_takes_detections(clip, tmp_path):
    """As browsers record: the frames of the WebM are counted, and each gets the box that its number has in the file."""
    path, detections = tmp_path / "live.webm", tmp_path / "det.txt"
    with av.open(path, "w", options={"live": "1"}) as container:
        stream = container.add_stream("libvpx-vp9", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 96, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode())
    detections.write_text("".join(f"{frame},-1,{8 * frame},10,30,20,0.9\n" for frame in (1, 2, 3, 4)))
    assert track(path, "--detections", detections, "--association", "iou", "-o", tmp_path / "out") == 0
    (one,) = tracks_of(tmp_path / "out")
    assert [(record["frame"], record["bbox"][0]) for record in one["frames"]] == [(0, 8), (1, 16), (2, 24), (3, 32)]


def test_entitysam_proposes(clip, tmp_path):
    frames, _, _ = clip
    words = ("--proposals", "entitysam:model=tiny", "--association", "iou", "--max-frames", 2)
    assert track(frames, *words, "-o", tmp_path / "out") == 0
    assert all("segmentation" in one for t in tracks_of(tmp_path / "out") for one in t["frames"])
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES | {"masks", "segments.json"}


def test_resumed_is_the_same_as_straight(clip, tmp_path, capsys, monkeypatch):
    frames, detections, _ = clip
    words = ("--detections", detections, "--proposals", "fast", "--setting", "tao")
    assert track(frames, *words, "-o", tmp_path / "straight") == 0
    embed_frame, embedded = VideoTracker.embed_frame, []

    def interrupted(self, frame, seen):
        embedded.append(len(seen))
        if len(embedded) == 4:
            signal.raise_signal(signal.SIGINT)
        return embed_frame(self, frame, seen)

    monkeypatch.setattr(VideoTracker, "embed_frame", interrupted)
    out = tmp_path / "parts"
    assert track(frames, *words, "-o", out) == 130
    assert [path.name for path in out.iterdir()] == [".resume"]
    capsys.readouterr()
    assert track(frames, *words, "--stride", 2, "-o", out, "--resume") == 2
    assert "the unfinished run was another one (stride was 1, is 2)" in capsys.readouterr().err
    damaged = out / ".resume" / "detections_00000001.rec"
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert track(frames, *words, "-o", out, "--resume") == 0
    assert len(embedded) == 4 + 2  # frames 0 to 3; then 1, whose file was damaged, and 4
    assert {path.name for path in out.iterdir()} == FILES
    for name in ("tracks.json", "tracks.txt", "events.json"):
        assert (out / name).read_bytes() == (tmp_path / "straight" / name).read_bytes(), name
    assert track(frames, *words, "-o", out, "--resume") == 0  # finished: from the beginning
    assert len(embedded) == 6 + 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--detections", "none.json"), "none.json: no such file"),
        (("tracker.betta=1",), "tracker.betta: unknown key"),
        (("tracker.beta=much",), "tracker.beta: must be a valid number, not 'much'"),
        (("tracker.gamma=nan",), "tracker.gamma: must be in 0..1, not nan"),
        (("tracker.memory_frames=1.5",), "tracker.memory_frames: must be a valid integer, not '1.5'"),
        (("tracker.within_category=[true",), "tracker.within_category: must be a valid boolean"),
        (("inference.beta=1",), "unknown key 'inference.beta'; overrides start with 'tracker.'"),
        (("--proposals", "magic", "--association", "iou"), "proposals: one of fast, entitysam, esam, sam, not 'magic'"),
        (("--weights", "none.safetensors"), "none.safetensors: no such file"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(clip, tmp_path, capsys, words, message):
    assert track(clip[0], *words, "-o", tmp_path / "out") == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert message in errors[-1]
    assert not (tmp_path / "out").exists()


def test_detections_of_another_clip_are_refused(clip, tmp_path, capsys):
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"images": [{"id": 1, "file_name": "elsewhere.jpg"}], "annotations": []}))
    assert track(clip[0], "--detections", other, "-o", tmp_path / "out") == 2
    assert "none of its frames (elsewhere, ...) is a frame of val_00000" in capsys.readouterr().err


def test_broken_boxes_and_frames_elsewhere_are_counted(clip, tmp_path, capsys):
    frames, detections, _ = clip
    contents = json.loads(detections.read_text())
    contents["images"].append({"id": 77, "file_name": "elsewhere.jpg"})
    contents["annotations"] += [{"image_id": 0, "bbox": box} for box in ([500, 5, 5, 5], [3, 3, 0, 9])]
    contents["annotations"].append({"image_id": 0, "bbox": [1, 1, 5, 5], "score": float("nan")})
    path = tmp_path / "found.json"
    path.write_text(json.dumps(contents))
    assert track(frames, "--detections", path, "--association", "iou", "-o", tmp_path / "out") == 0
    errors = capsys.readouterr().err
    assert "1 of its frames are not in" in errors
    assert "2 detections whose box is empty or not on the frame" in errors
    assert "1 detections whose score is no number" in errors


def test_a_real_clip_with_its_annotated_masks(tmp_path):
    if not REAL.is_dir():
        pytest.skip(f"real sample not here: {REAL}")
    words = ("--detections", REAL / "labels", "--association", "iou", "--max-frames", 2, "-o", tmp_path)
    assert track(REAL / "images" / "00091078-875c1f73", *words) == 0
    assert sum(len(one["frames"]) for one in tracks_of(tmp_path)) == 13 + 13


def test_segment_with_reid(clip, tmp_path, capsys):
    words = ("segment", str(clip[0]), "--model", "tiny", "--max-frames", "2", "--device", "cpu", "-q")
    assert main([*words, "--reid", "random", "-o", str(tmp_path / "out")]) == 0
    assert {"overlay.mp4", "tracks.json", "segments.json"} <= {path.name for path in (tmp_path / "out").iterdir()}
    assert main([*words, "--reid", "random", "--online", "-o", str(tmp_path / "online")]) == 2
    assert "--reid needs the whole video" in capsys.readouterr().err
    assert not (tmp_path / "online").exists()
