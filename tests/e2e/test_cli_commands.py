"""The command line itself, bad input one by one, and the commands besides `segment`."""

import json
import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from entitysam import __version__, hub, shipped
from entitysam.checkpoint import CheckpointError, save_weights
from entitysam.cli import COMMANDS, doctor, main, parse
from entitysam.cli.shared import models, settings
from entitysam.engine.build import build_model, config_of, model_config, opening
from entitysam.io.readers.source import open_frames
from entitysam.io.record_store import first_difference
from entitysam.io.result_folder import claim_folder
from entitysam.io.writers.video import VideoWriter
from entitysam.registry import ConfigError

SMALL_MODEL = {"image_size": 64, "num_entities": 4}


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(np.full((40, 50, 3), 90, np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def small_weights(tmp_path_factory):
    """A weight file of ours with its config inside."""
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_weights(path, build_model("tiny", **SMALL_MODEL), {**model_config("tiny"), **SMALL_MODEL})
    return path


def assert_refused(capsys, arguments, message, code=2):
    assert main([str(word) for word in arguments]) == code
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if not line.startswith("entitysam: warning")]
    assert len(errors) == 1
    assert errors[0].startswith("entitysam: error: ")
    assert message in errors[0]
    assert captured.out == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "vit-xxl"], "unknown model 'vit-xxl'; known: tiny, tiny_scratch, vitl, vits"),
        (["--model", "no.pth"], "no weight file no.pth"),
        (["--weights", "no.pth"], "no weight file no.pth"),
        (["--model", "a.pth", "--weights", "b.pth"], "two weight files"),
        (["--device", "cuda:99"], "device 'cuda:99' is not there"),
        (["--device", "toaster"], "device 'toaster' is not there"),
        (["--image-size", "100"], "multiple of 32"),
        (["--stride", "0"], "stride must be at least 1"),
        (["--max-frames", "-1"], "max_frames must be at least 1"),
        (["--drop-stale"], "only for a camera"),
        (["--threshold", "1.5"], "inference.score_threshold: must be in 0..1, not 1.5"),
        (["--warmup-frames", "-1"], "inference.warmup_frames: must not be negative"),
        (["inference.warmup=3"], "inference.warmup"),
        (["inference.warmup_frames=many"], "inference.warmup_frames"),
        (["model.depth=3"], "model.depth: unknown key"),
        (["speed=3"], "unknown key 'speed'"),
        (["inference.fast=7"], "inference.fast: 0, 1, 2, 3, not 7"),
        (["arithmetic.matmul=fast"], "arithmetic.matmul: one of highest, high, medium, not 'fast'"),
        (["arithmetic.tf32=true"], "arithmetic.tf32"),
    ],
)
def test_bad_options_of_segment(image, tmp_path, capsys, options, message):
    out = tmp_path / "out"
    model = [] if "--model" in options else ["--model", "tiny"]
    assert_refused(capsys, ["segment", image, "-o", out, *model, *options], message)
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.mp4", b"", "the file is empty"),
        ("noise.mp4", bytes(range(256)) * 9, "not a video"),
        ("notes.txt", b"words\n" * 99, "not a video"),
        ("none.avi", None, "no such file or folder"),
    ],
)
def test_bad_input_of_segment(tmp_path, capsys, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert_refused(capsys, ["segment", tmp_path / name, "-o", tmp_path / "out", "--model", "tiny"], message)
    assert not (tmp_path / "out").exists()


def test_bad_outputs_of_segment(image, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        assert_refused(capsys, ["segment", image, "-o", out, "--model", "tiny"], "is not a folder")


@pytest.mark.parametrize("command", [["segment"], ["segment", "--online"], ["track", "--association", "iou"]])
def test_an_input_in_the_result_folder_is_refused_and_kept(image, tmp_path, capsys, command):
    video = tmp_path / "d" / "overlay.mp4"
    video.parent.mkdir()
    with VideoWriter(video, 64, 48) as writer:
        writer.add(np.zeros((48, 64, 3), np.uint8))
    before = video.read_bytes()
    message = "overlay.mp4: is an input of this run, and the result would overwrite it; choose another folder with -o"
    assert_refused(capsys, [*command, video, "-o", video.parent], message)
    assert video.read_bytes() == before
    assert list(video.parent.iterdir()) == [video]


def test_a_second_run_is_refused_with_the_first_ones_process(image, tmp_path, capsys):
    with open_frames(image) as frames, claim_folder(tmp_path / "out", [], frames, str(image), None):
        assert_refused(capsys, ["segment", image, "-o", tmp_path / "out"], f"another run (process {os.getpid()})")


def test_default_folders_of_two_patterns_and_of_the_parent_folder(image, tmp_path, monkeypatch, capsys):
    for name in "ab":
        (tmp_path / name).mkdir()
        Image.open(image).save(tmp_path / name / "1.jpg")
    monkeypatch.chdir(tmp_path)
    for source in ("a/*.jpg", "b/*.jpg"):
        assert main(["segment", source, "-q", "--image-size", "64", "--warmup-frames", "0"]) == 0
    monkeypatch.chdir(tmp_path / "a")
    assert main(["segment", "..", "-q", "--image-size", "64", "--warmup-frames", "0"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "b"]
    assert [path.name for path in (tmp_path / "a" / "out").iterdir()] == [tmp_path.name]


def test_an_empty_output_name_and_a_name_like_an_option(image, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-lead.png").write_bytes(image.read_bytes())
    for words, message in [
        (["segment", str(image), "-o", ""], "an empty name"),
        (["segment", "-lead.png"], "write ./-lead.png for the file of that name, or put it last, after --"),
    ]:
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 2
        assert message in capsys.readouterr().err
    assert parse(["segment", "-o", "out", "--", "-lead.png"]).input == "-lead.png"


def test_sigterm_gives_143_at_any_time(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "examine", lambda *_: signal.raise_signal(signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    assert main(["doctor"]) == 143
    assert "stopped" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == before


def test_label_opens_local_files_only(image, tmp_path, capsys):
    head = {"video_id": "x", "width": 8, "height": 8, "fps": None, "source": {"source": "rtsp://host/cam"}}
    (tmp_path / "tracks.json").write_text(json.dumps({**head, "frames": [], "tracks": []}))
    (tmp_path / "segments.json").write_text("{}")
    message = "its frames are not in the local file or folder 'rtsp://host/cam'; give --input"
    assert_refused(capsys, ["label", tmp_path, "--labels", "dog", "--base-url", "http://127.0.0.1:9"], message)


def test_bad_checkpoints(image, small_weights, tmp_path, capsys):
    def refused(file, message, *options):
        assert_refused(capsys, ["segment", image, "-o", tmp_path / "out", *options, file], message)

    (tmp_path / "corrupt.pth").write_bytes(b"not a checkpoint at all")
    refused(tmp_path / "corrupt.pth", "cannot be read as weights", "--model")
    (tmp_path / "cut.safetensors").write_bytes(small_weights.read_bytes()[:5000])
    refused(tmp_path / "cut.safetensors", "cannot be read as weights", "--model")
    torch.save({"model": {"conv1.weight": torch.zeros(3)}}, tmp_path / "resnet.pth")
    refused(tmp_path / "resnet.pth", "carries no config", "--model")
    refused(small_weights, "wrong shape", "--model", "tiny", "--weights")
    assert not (tmp_path / "out").exists()


def test_a_weight_file_contains_its_config(image, small_weights, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["segment", str(image), "-o", str(out), "--model", str(small_weights), "-q", "--threshold", "0"]) == 0
    assert "random weights" not in capsys.readouterr().err
    opened = models.open_model(str(small_weights), None, "cpu", {})
    assert opened.model.num_entities == SMALL_MODEL["num_entities"]
    assert opened.weights == small_weights


def test_random_weights_are_the_same_in_every_run():
    first, second = (models.open_model("tiny", "random", "cpu", SMALL_MODEL).model.state_dict() for _ in range(2))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_settings_from_options_and_overrides():
    words = ["segment", "x", "--warmup-frames", "2", "--threshold", "0.2", "--dtype", "bf16", "--image-size", "128"]
    words += ["inference.score_threshold=0.3", "model.entity_decoder.depth=6", "inference.max_entities=9"]
    model, inference = settings.read_settings(parse(words))
    assert model == {"entity_decoder": {"depth": 6}, "image_size": 128}
    assert inference["warmup_frames"] == 2
    assert inference["score_threshold"] == 0.3  # the word wins over the option
    assert inference["max_entities"] == 9
    assert inference["amp"] == "bf16"
    defaults = settings.read_settings(parse(["segment", "x"]))[1]
    assert (defaults["warmup_frames"], defaults["score_threshold"], defaults["amp"]) == (3, 0.05, "fp32")
    with pytest.raises(ConfigError, match="amp"):
        settings.read_settings(parse(["segment", "x", "inference.amp=fp8"]))


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_has_an_example(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert f"  entitysam {command}" in capsys.readouterr().out


def test_help_version_and_usage_errors(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"entitysam {__version__}\n"
    for words in (
        [],
        ["fly"],
        ["segment"],
        ["segment", "a.mp4", "b.mp4"],
        ["doctor", "a.b=3"],
        ["segment", "x", "--fast"],
        ["segment", "x", "-o", ""],
        ["label", "x", "-o", ""],
    ):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 2
        assert "error:" in capsys.readouterr().err


def test_debug_shows_the_traceback(tmp_path, capsys):
    assert main(["segment", str(tmp_path / "none.mp4"), "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_demo(tmp_path, monkeypatch, capsys, small_weights):
    monkeypatch.setattr(opening, "default_weights", lambda name: None)
    monkeypatch.setattr(opening, "model_config", lambda name: {**model_config(name), **SMALL_MODEL})
    assert main(["demo", "-o", str(tmp_path / "demo"), "--frames", "3", "-q", "--device", "cpu"]) == 0
    captured = capsys.readouterr()
    assert "random" in captured.err
    assert "contact_sheet.png" in captured.out
    assert len(list((tmp_path / "demo" / "masks").iterdir())) == 3
    assert json.loads((tmp_path / "demo" / "tracks.json").read_text())["frames"] == ["00000", "00001", "00002"]
    monkeypatch.setattr(opening, "default_weights", lambda name: small_weights)
    assert main(["demo", "-o", str(tmp_path / "demo"), "--frames", "2", "-q", "--device", "cpu"]) == 0
    assert "random" not in capsys.readouterr().err
    assert len(list((tmp_path / "demo" / "masks").iterdir())) == 2
    assert main(["demo", "-o", str(tmp_path / "demo"), "--frames", "0"]) == 2


def test_download_without_a_network_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *names, **options: None)
    monkeypatch.setattr(hub, "hub_is_reachable", lambda: False)
    monkeypatch.chdir(tmp_path)
    assert_refused(capsys, ["download", "vit-s"], "checkpoints/vit-s/model_0009999.pth")
    assert_refused(capsys, ["download", "vit-l", "--dir", "here"], "here/entitysam_vitl.pth")
    assert_refused(capsys, ["download", "vit-m"], "unknown model 'vit-m'")


def test_download_checks_and_copies(tmp_path, monkeypatch, capsys, small_weights):
    monkeypatch.setattr(shipped, "default_weights", lambda name: small_weights)
    assert_refused(capsys, ["download", "tiny"], "wrong shape")
    whole = tmp_path / "entitysam_tiny.safetensors"
    save_weights(whole, build_model("tiny"), model_config("tiny"))
    monkeypatch.setattr(shipped, "default_weights", lambda name: whole)
    assert main(["download", "tiny", "--dir", str(tmp_path / "copy")]) == 0
    assert (tmp_path / "copy" / "entitysam_tiny.safetensors").read_bytes() == whole.read_bytes()
    assert "tensors, all in order" in capsys.readouterr().out
    monkeypatch.setattr(shipped, "default_weights", lambda name: None)
    assert_refused(capsys, ["download", "tiny"], "this installation has none")


def test_doctor(tmp_path, monkeypatch, capsys):
    (tmp_path / "datasets" / "mine" / "train").mkdir(parents=True)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "other.pth").write_bytes(b"x")
    folders = ["--datasets", str(tmp_path / "datasets"), "--checkpoints", str(tmp_path / "checkpoints")]
    assert main(["doctor", *folders]) == 0
    report = capsys.readouterr().out
    lines = report.splitlines()
    assert all(line.split()[0] in ("ok", "warn") for line in lines)
    assert any("torch " + torch.__version__.split("+")[0] in line for line in lines)
    assert any("h264" in line for line in lines)
    assert any("mine: train" in line for line in lines)
    assert any("other.pth" in line for line in lines)
    monkeypatch.setattr(doctor, "REQUIRED", ("no-such-package",))
    assert main(["doctor", *folders]) == 1
    assert "missing package   no-such-package is not installed" in capsys.readouterr().out


def test_the_message_of_the_first_difference():
    before = {"a": {"b": 1, "c": [1, 2]}, "d": "x"}
    assert first_difference(before, {"a": {"b": 1, "c": [1, 2]}, "d": "x"}) == ""
    assert first_difference(before, {"a": {"b": 2, "c": [1, 2]}, "d": "x"}) == "a.b was 1, is 2"
    assert first_difference(before, {"a": {"b": 1, "c": [1, 2]}, "d": "x", "e": 3}) == "e was null, is 3"
    assert first_difference({"a": "x" * 99}, {"a": "y"}) == "a changed"


def test_a_weight_file_without_a_config_needs_a_model_name(tmp_path):
    torch.save({"w": torch.zeros(2)}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="--model NAME --weights"):
        config_of(tmp_path / "w.pt")
