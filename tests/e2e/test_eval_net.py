"""tools/eval_net.py as a user runs it: synthetic videos, a small network, valid and invalid saved predictions."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from golden.seeded_weights import seeded_state_dict
from PIL import Image
from support.processes import finish, forked
from support.small_sam2 import SMALL

import entitysam
from entitysam.checkpoint import save_weights
from entitysam.config import load_config, to_dict
from entitysam.data.images import read_id_map
from entitysam.data.prepare.vipseg_layout import convert_scalabel
from entitysam.data.synthetic.writer import SyntheticSet, write_synthetic
from entitysam.engine.build import model_config
from entitysam.engine.evaluate.run import RunOptions, evaluate, run
from entitysam.ops import ids_to_rgb, rle_encode
from entitysam.registry import ConfigError

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "eval_net.py"
REAL = ROOT / ".." / "shared" / "data" / "bdd100k_mots"
WINDOWS = "evaluation.evaluators=[{name: veq, windows: [1, 2, 4]}, {name: stq_en}, {name: ytvis_ap_agnostic}]"
SIZE = {"image_size": 64, "num_entities": 6}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Three synthetic videos of 4 frames in VIPSeg's layout."""
    folder = tmp_path_factory.mktemp("videos")
    nothing = {"train_images": 0, "val_images": 0, "train_videos": 0}
    write_synthetic(folder, SyntheticSet(**nothing, val_videos=3, val_frames=4, video_size=(48, 80)))
    return folder / "VIPSeg_720P"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A weight file with its config; the seeded weights give different entities."""
    model = entitysam.build_model("tiny_scratch", **SIZE)
    model.load_state_dict(seeded_state_dict({name: value.shape for name, value in model.state_dict().items()}, seed=1))
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_weights(path, model, model_config("tiny_scratch", **SIZE))
    return path


def config_of(root, out, *overrides):
    nodes = [f"evaluation.dataset.root={root}", f"output_dir={out}", "inference.warmup_frames=1", WINDOWS, *overrides]
    return to_dict(load_config("eval/vipseg", nodes))


def go(root, out, *overrides, **options):
    """Runs in this process: contents of the result file, and whether the run is complete."""
    complete = run(config_of(root, out, *overrides), RunOptions(device="cpu", quiet=True, **options))
    return json.loads((Path(out) / "result.json").read_text()), complete


def command(*arguments):
    return [sys.executable, str(TOOL), "--device", "cpu", *map(str, arguments)]


def main(monkeypatch, *arguments):
    """The command in this process: exit status or message."""
    spec = importlib.util.spec_from_file_location("eval_net", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", [str(TOOL), "--device", "cpu", *map(str, arguments)])
    try:
        module.main()
    except SystemExit as ended:
        return ended.code
    return 0


def run_overrides(root, out):
    return [f"evaluation.dataset.root={root}", f"output_dir={out}", "inference.warmup_frames=1", WINDOWS]


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def numbers(result):
    return result["metrics"], {name: video["metrics"] for name, video in result["videos"].items()}


@pytest.fixture(scope="module")
def reference(videos, weights, tmp_path_factory):
    """A reference run in this process: folder and result."""
    out = tmp_path_factory.mktemp("reference")
    result, complete = go(videos, out, weights=str(weights))
    assert complete
    return out, result


def test_a_run_writes_predictions_report_and_plots(reference):
    out, result = reference
    assert set(result["videos"]) == {"val_00000", "val_00001", "val_00002"}
    assert 0 < result["metrics"]["STQ^EN-IoU"] <= 100
    assert {"VEQ", "VEQ@4", "AP^ca"} <= result["metrics"].keys()
    assert len(list((out / "pan_pred").rglob("*.png"))) == 12
    predicted = json.loads((out / "pred.json").read_text())["annotations"]
    assert [video["video_id"] for video in predicted] == sorted(result["videos"])
    frame = predicted[0]["annotations"][0]
    ids = read_id_map(out / "pan_pred" / "val_00000" / frame["file_name"])
    assert {s["id"]: s["area"] for s in frame["segments_info"]} == {
        int(n): int((ids == n).sum()) for n in np.unique(ids) if n
    }
    assert "paper, EntitySAM ViT-S" in (out / "result.md").read_text()
    lines = (out / "per_video.csv").read_text().splitlines()
    assert lines[0].startswith("video,frames,seconds,VEQ,")
    assert len(lines) == 4
    for name in ("windows.png", "per_video.png", "worst_videos.png"):
        assert Image.open(out / "plots" / name).size[0] > 100


def test_two_processes_give_the_results_of_one(reference, videos, weights, tmp_path):
    arguments = command("--weights", weights, "--num-gpus", 2, "--quiet", *run_overrides(videos, tmp_path))
    done = subprocess.run(arguments, capture_output=True, text=True, env=ENVIRONMENT, timeout=600)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["run"]["processes"] == 2
    assert numbers(result) == numbers(reference[1])
    assert (tmp_path / "pred.json").read_text() == (reference[0] / "pred.json").read_text()
    assert done.stdout.count("| this run |") == 2  # the metrics and the windows, printed by one process


def test_a_killed_run_resumes_to_the_same_results(reference, videos, weights, tmp_path):
    process = forked(lambda: not go(videos, tmp_path, weights=str(weights))[1])
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("records/*.rec")) and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    assert finish(process) == -signal.SIGKILL
    assert not (tmp_path / "result.json").exists()
    finished = {path: path.stat().st_mtime_ns for path in tmp_path.glob("records/*.rec")}
    assert 1 <= len(finished) <= 3

    result, complete = go(videos, tmp_path, weights=str(weights), resume=True)
    assert complete
    assert numbers(result) == numbers(reference[1])
    assert {path: path.stat().st_mtime_ns for path in finished} == finished


def test_resume_refuses_another_run(reference, videos, weights, tmp_path):
    shutil.copytree(reference[0], tmp_path / "run")
    with pytest.raises(ConfigError, match=r"cannot resume, .*inference.score_threshold was 0.05, is 0.3"):
        go(videos, tmp_path / "run", "inference.score_threshold=0.3", weights=str(weights), resume=True)


@pytest.mark.parametrize("content", ["5", "[", "[" * 100_000, '{"format": 1e999}', "\x00"])
def test_resume_refuses_a_damaged_run_file(videos, monkeypatch, tmp_path, content):
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "run.json").write_text(content)
    arguments = ["--method", "whole_frame", "--resume", "--quiet", *run_overrides(videos, tmp_path)]
    message = main(monkeypatch, *arguments)
    assert message.startswith(f"error: {tmp_path / 'records'}: cannot resume, ")
    assert "\n" not in message


def test_a_broken_video_is_skipped_and_reported(reference, videos, weights, tmp_path):
    broken = tmp_path / "data"
    shutil.copytree(videos, broken)
    image = broken / "images/val_00001/00000002.jpg"
    content = image.read_bytes()
    image.write_bytes(content[: len(content) // 2])
    result, complete = go(broken, tmp_path / "out", weights=str(weights))
    assert not complete
    assert set(result["videos"]) == {"val_00000", "val_00002"}
    assert [failure["video"] for failure in result["failures"]] == ["val_00001"]
    assert "00000002.jpg" in result["failures"][0]["error"]
    assert "val_00001" in (tmp_path / "out" / "result.md").read_text()

    image.write_bytes(content)
    result, complete = go(broken, tmp_path / "out", weights=str(weights), resume=True)
    assert complete
    assert numbers(result) == numbers(reference[1])


def test_limit_and_no_save_predictions(videos, weights, tmp_path):
    result, _ = go(videos, tmp_path, weights=str(weights), limit_videos=1, save_predictions=False)
    assert list(result["videos"]) == ["val_00000"]
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"result.json", "result.md", "per_video.csv", "plots"}


def test_a_training_evaluates_to_the_same_results(reference, videos, weights, tmp_path):
    model = entitysam.build_model("tiny_scratch", **SIZE)
    entitysam.load_weights(model, weights)
    metrics = evaluate(model.eval(), load_config("eval/vipseg", run_overrides(videos, tmp_path)), tmp_path)
    expected = {name: np.nan if value is None else value for name, value in reference[1]["metrics"].items()}
    np.testing.assert_equal(metrics, expected)


# Saved predictions -----------------------------------------------------------------------------------------------------


def perfect(root, folder):
    """The ground truth as a prediction."""
    shutil.copytree(root / "panomasksRGB", folder / "pan_pred")
    shutil.copy(root / "panoptic_gt_VIPSeg_val.json", folder / "pred.json")
    return folder


def shuffle_ids(folder, seed=0):
    """Permutes the ids of every frame differently."""
    rng = np.random.default_rng(seed)
    contents = json.loads((folder / "pred.json").read_text())
    for video in contents["annotations"]:
        for frame in video["annotations"]:
            path = folder / "pan_pred" / video["video_id"] / frame["file_name"]
            ids = read_id_map(path)
            old = [segment["id"] for segment in frame["segments_info"]]
            new = dict(zip(old, rng.permutation(old).tolist()))
            Image.fromarray(ids_to_rgb(np.vectorize(lambda n, new=new: new.get(n, 0))(ids))).save(path)
            for segment in frame["segments_info"]:
                segment["id"] = new[segment["id"]]
    (folder / "pred.json").write_text(json.dumps(contents))
    return folder


def test_the_ground_truth_is_perfect_and_shuffled_ids_are_worse(videos, monkeypatch, capsys, tmp_path):
    result, complete = go(videos, tmp_path / "a", predictions=str(perfect(videos, tmp_path / "truth")))
    assert complete
    assert not result["warnings"]
    metrics = result["metrics"]
    for name in ("VEQ", "VEQ-SQ", "VEQ-RQ", "VEQ@1", "VEQ@4", "STQ^EN", "STQ^EN-AQ", "STQ^EN-IoU", "AP^ca", "AP^ca75"):
        assert metrics[name] == pytest.approx(100, abs=1e-9), name

    shuffled = shuffle_ids(perfect(videos, tmp_path / "shuffled"))
    worse, _ = go(videos, tmp_path / "b", predictions=str(shuffled))
    assert worse["metrics"]["VEQ@1"] == pytest.approx(100, abs=1e-9)
    for name in ("VEQ", "VEQ@2", "VEQ@4", "STQ^EN-AQ", "AP^ca"):
        assert worse["metrics"][name] < 90, name
    assert worse["metrics"]["VEQ@4"] < worse["metrics"]["VEQ@2"]

    both = ("--compare", tmp_path / "a", tmp_path / "b", "--plot", tmp_path / "compared.png")
    assert main(monkeypatch, *both) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| val_")]
    losses = [float(row.split("|")[-2]) for row in rows]
    assert len(rows) == 3
    assert losses == sorted(losses)
    assert Image.open(tmp_path / "compared.png").size[0] > 100


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real clips in {REAL}")
def test_real_clips(tmp_path):
    convert_scalabel(REAL / "labels", REAL / "images", tmp_path / "bdd", "val")
    windows = "evaluation.evaluators=[{name: veq, windows: [1, 2, 4, 6]}, {name: stq_en}, {name: ytvis_ap_agnostic}]"
    truth = perfect(tmp_path / "bdd", tmp_path / "truth")
    result, complete = go(tmp_path / "bdd", tmp_path / "a", windows, predictions=str(truth), worst=0)
    assert complete
    for name in ("VEQ", "STQ^EN", "AP^ca"):
        assert result["metrics"][name] == pytest.approx(100, abs=1e-9), name
    worse, _ = go(tmp_path / "bdd", tmp_path / "b", windows, predictions=str(shuffle_ids(truth)), worst=0)
    for name in ("VEQ", "STQ^EN", "AP^ca"):
        assert worse["metrics"][name] < 70, name


def test_video_panoptic_quality_of_saved_predictions(videos, tmp_path):
    named = ["evaluation.task=vps", "evaluation.evaluators=[{name: vpq, windows: [1, 2, 4]}, {name: stq}]"]
    truth = perfect(videos, tmp_path / "truth")
    result, complete = go(videos, tmp_path / "out", *named, predictions=str(truth))
    assert complete
    assert result["metrics"]["VPQ"] == pytest.approx(100, abs=1e-9)
    assert result["metrics"]["STQ"] == pytest.approx(100, abs=1e-9)
    contents = json.loads((truth / "pred.json").read_text())
    contents["annotations"][0]["annotations"][0]["segments_info"][0]["category_id"] = 777
    (truth / "pred.json").write_text(json.dumps(contents))
    result, complete = go(videos, tmp_path / "out", *named, predictions=str(truth))
    assert not complete
    assert "has category 777" in result["failures"][0]["error"]


def test_an_index_without_categories_is_refused_where_they_are_needed(videos, tmp_path):
    index = json.loads((videos / "panoptic_gt_VIPSeg_val.json").read_text())
    for name in ("images", "panomasksRGB"):
        (tmp_path / name).symlink_to(videos / name)
    (tmp_path / "panoptic_gt_VIPSeg_val.json").write_text(json.dumps({**index, "categories": []}))
    named = ["evaluation.task=vps", "evaluation.evaluators=[{name: vpq, windows: [1]}]"]
    with pytest.raises(ConfigError, match=r"its annotations list no categories, which evaluation.task 'vps' needs"):
        go(tmp_path, tmp_path / "out", *named, predictions=str(tmp_path))


def edit(folder, change):
    contents = json.loads((folder / "pred.json").read_text())
    change(contents["annotations"])
    (folder / "pred.json").write_text(json.dumps(contents))


def png_of(folder):
    return folder / "pan_pred/val_00001/00000001.png"


def truncate(path):
    path.write_bytes(path.read_bytes()[:-30])


def resize(path):
    Image.fromarray(ids_to_rgb(read_id_map(path)[:-8])).save(path)


BAD = {
    "a frame too few": (lambda f: edit(f, lambda a: a[1]["annotations"].pop()), "3 frames predicted, 4 frames"),
    "a frame too many": (
        lambda f: edit(f, lambda a: a[1]["annotations"].append(a[1]["annotations"][0])),
        "5 frames predicted, 4 frames",
    ),
    "another size": (
        lambda f: resize(png_of(f)),
        "video val_00001, frame 1: predicted map is 80x40, ground truth 80x48",
    ),
    "a truncated PNG": (lambda f: truncate(png_of(f)), "val_00001/00000001.png: truncated PNG"),
    "no PNG": (lambda f: png_of(f).unlink(), "val_00001/00000001.png"),
    "predicted twice": (lambda f: edit(f, lambda a: a.append(a[1])), "video val_00001: predicted 2 times"),
    "not predicted": (lambda f: edit(f, lambda a: a.pop(1)), "video val_00001: not predicted"),
    "id not listed": (
        lambda f: edit(f, lambda a: a[1]["annotations"][0]["segments_info"].pop()),
        "is in the map and not listed",
    ),
    "id without pixels": (
        lambda f: edit(f, lambda a: a[1]["annotations"][0]["segments_info"].append({"id": 999, "category_id": 1})),
        "id 999 is listed in the JSON and has no pixels",
    ),
    "no segments_info": (
        lambda f: edit(f, lambda a: a[1]["annotations"][2].pop("segments_info")),
        "video val_00001, frame 2: no 'segments_info'",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_video_is_skipped_and_reported(videos, tmp_path, case):
    spoil, message = BAD[case]
    folder = perfect(videos, tmp_path / "pred")
    spoil(folder)
    result, complete = go(videos, tmp_path / "out", predictions=str(folder), worst=0)
    assert not complete
    assert {failure["video"] for failure in result["failures"]} == {"val_00001"}
    assert any(message in failure["error"] for failure in result["failures"]), result["failures"]
    assert result["metrics"]["VEQ"] == pytest.approx(100, abs=1e-9)


def test_defects_that_the_published_evaluators_accept_are_counted(videos, tmp_path):
    folder = perfect(videos, tmp_path / "pred")

    def change(annotations):
        annotations.append({"video_id": "other", "annotations": []})
        annotations[0]["annotations"][0]["file_name"] = "elsewhere.png"

    edit(folder, change)
    result, complete = go(videos, tmp_path / "out", predictions=str(folder), worst=0)
    assert complete
    assert result["warnings"]["predicted videos that the data set does not have, left out"] == 1
    assert any("names differ" in text for text in result["warnings"])
    assert "1 x predicted videos" in (tmp_path / "out" / "result.md").read_text()


def test_a_broken_index_is_one_line(videos, monkeypatch, tmp_path):
    folder = perfect(videos, tmp_path / "pred")
    truncate(folder / "pred.json")
    message = main(monkeypatch, "--predictions", folder, *run_overrides(videos, tmp_path / "out"))
    assert message.startswith(f"error: {folder / 'pred.json'}: broken JSON")
    assert "\n" not in message


WRONG = {
    "not a list": (lambda c: c.update(annotations=5), "annotations: Input should be a valid list, not 5"),
    "an entry that is no object": (lambda c: c["annotations"].append(None), "annotations[3]: "),
    "a video id that is a list": (lambda c: c["annotations"][0].update(video_id=[1]), "annotations[0].video_id"),
    "no video id": (lambda c: c["annotations"][0].pop("video_id"), "annotations[0]: no 'video_id'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_index_with_wrong_types_is_one_line(videos, monkeypatch, tmp_path, case):
    change, expected = WRONG[case]
    folder = perfect(videos, tmp_path / "pred")
    contents = json.loads((folder / "pred.json").read_text())
    change(contents)
    (folder / "pred.json").write_text(json.dumps(contents))
    message = main(monkeypatch, "--predictions", folder, *run_overrides(videos, tmp_path / "out"))
    assert message.startswith(f"error: {folder / 'pred.json'}: not a panoptic prediction file: {expected}")
    assert "\n" not in message


def test_a_deeply_nested_index_is_one_line(videos, monkeypatch, tmp_path):
    folder = perfect(videos, tmp_path / "pred")
    (folder / "pred.json").write_text("[" * 100_000)
    message = main(monkeypatch, "--predictions", folder, *run_overrides(videos, tmp_path / "out"))
    assert message == f"error: {folder / 'pred.json'}: broken JSON (nested too deeply)"


VALUES = {
    "id": (float("inf"), 1 << 31, -1, [1], None, "x"),
    "area": (float("inf"), float("nan"), [], "x"),
    "category_id": (float("inf"), {}, "cat"),
    "iscrowd": ([],),
    "score": ("high", {}),
}


@pytest.mark.parametrize("key", VALUES)
def test_a_wrong_value_fails_its_video_in_one_line(videos, tmp_path, key):
    for value in VALUES[key]:
        folder = perfect(videos, tmp_path / "pred")
        edit(folder, lambda a, value=value: a[1]["annotations"][2]["segments_info"][0].update({key: value}))
        result, complete = go(videos, tmp_path / "out", predictions=str(folder), worst=0)
        assert not complete
        assert {failure["video"] for failure in result["failures"]} == {"val_00001"}, value
        for failure in result["failures"]:
            assert failure["error"].startswith(f"pred.json: video val_00001, frame 2: segments_info[0].{key}: "), value
        shutil.rmtree(folder)


@pytest.mark.parametrize("value", [float("inf"), None, [2]])
def test_a_wrong_value_in_the_ground_truth_fails_its_video(videos, tmp_path, value):
    root = tmp_path / "data"
    shutil.copytree(videos, root)
    folder = perfect(videos, tmp_path / "pred")
    contents = json.loads((root / "panoptic_gt_VIPSeg_val.json").read_text())
    contents["annotations"][1]["annotations"][0]["segments_info"][0]["area"] = value
    (root / "panoptic_gt_VIPSeg_val.json").write_text(json.dumps(contents))
    result, _ = go(root, tmp_path / "out", predictions=str(folder), worst=0)
    assert {failure["video"] for failure in result["failures"]} == {"val_00001"}
    expected = "video val_00001, ground truth, frame 0: segments_info[0].area: "
    for failure in result["failures"]:
        assert failure["error"].startswith(expected.replace("segments_info", "")), failure


# Trust -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../../../victim.png", "/victim.png"])
@pytest.mark.parametrize("key", ["video_id", "file_name"])
def test_names_in_the_ground_truth_write_nothing_outside(videos, monkeypatch, tmp_path, key, name):
    root, victim = tmp_path / "data", tmp_path / "victim.png"
    shutil.copytree(videos, root)
    victim.write_bytes(b"mine")
    name = str(victim) if name.startswith("/") else name
    contents = json.loads((root / "panoptic_gt_VIPSeg_val.json").read_text())
    if key == "video_id":
        contents["annotations"][0][key] = contents["videos"][0][key] = name
    else:
        contents["annotations"][0]["annotations"][0][key] = name
    (root / "panoptic_gt_VIPSeg_val.json").write_text(json.dumps(contents))
    message = main(monkeypatch, "--method", "whole_frame", "--quiet", *run_overrides(root, tmp_path / "out"))
    assert message.startswith(f"error: {root / 'panoptic_gt_VIPSeg_val.json'}: video ")
    assert "\n" not in message
    assert victim.read_bytes() == b"mine"
    assert not list((tmp_path / "out").rglob("*.png"))


def test_links_in_the_output_folder_are_not_followed(videos, monkeypatch, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (tmp_path / "out" / "records").mkdir(parents=True)
    (tmp_path / "out" / "pan_pred").mkdir()
    (tmp_path / "out" / "pan_pred" / "val_00001").symlink_to(theirs)
    message = main(monkeypatch, "--method", "whole_frame", "--quiet", *run_overrides(videos, tmp_path / "out"))
    assert message.startswith("error: video val_00001: the file name 'val_00001/00000000.png' leads through")
    assert not list(theirs.iterdir())
    assert not list((tmp_path / "out").rglob("*.png"))


def test_predictions_of_others_are_not_overwritten(videos, monkeypatch, tmp_path):
    folder = perfect(videos, tmp_path / "pred")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    arguments = ["--method", "whole_frame", "--no-save-predictions", "--quiet", *run_overrides(videos, folder)]
    message = main(monkeypatch, *arguments)
    assert (
        message
        == f"error: {folder / 'pan_pred'}: exists and was not written by an evaluation; choose another output_dir"
    )
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


# Reports ---------------------------------------------------------------------------------------------------------------


def test_windows_longer_than_the_videos_are_reported(videos, tmp_path):
    folder = perfect(videos, tmp_path / "truth")
    nodes = "evaluation.evaluators=[{name: veq, windows: [1, 4, 6, 8]}]"
    result, _ = go(videos, tmp_path / "out", nodes, predictions=str(folder), worst=0)
    assert result["metrics"]["VEQ"] == pytest.approx(50)
    (note,) = result["notes"]
    assert note.startswith(
        "VEQ: the longest video has 4 frames, so there is no clip of 6, 8 frames; these windows count 0"
    )
    assert note.endswith("{name: veq, windows: [1, 4]}.")
    assert note in (tmp_path / "out" / "result.md").read_text()
    result, _ = go(videos, tmp_path / "fits", predictions=str(folder), worst=0)
    assert result["notes"] == []


def test_half_size_predictions_are_on_the_contact_sheet(videos, tmp_path):
    folder = perfect(videos, tmp_path / "pred")
    for path in (folder / "pan_pred").rglob("*.png"):
        Image.fromarray(ids_to_rgb(read_id_map(path)[::2, ::2])).save(path)
    result, complete = go(videos, tmp_path / "out", predictions=str(folder))
    assert not complete
    assert all(
        "predicted map is 40x24, ground truth 80x48" in f["error"] for f in result["failures"] if f["during"] == "veq"
    )
    sheet = Image.open(tmp_path / "out" / "plots" / "worst_videos.png")
    rows = 3 * (180 + 18 + 6) + 6  # thumbnails of 300 x 180 with a caption
    assert sheet.height == rows


def test_the_command_fails_if_a_video_failed(videos, monkeypatch, capsys, tmp_path):
    folder = perfect(videos, tmp_path / "pred")
    truncate(png_of(folder))
    assert main(monkeypatch, "--predictions", folder, "--quiet", *run_overrides(videos, tmp_path / "out")) == 1
    assert "Failed, and missing from the numbers" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "options", "message"),
    [
        (["evaluation.task=vps"], {"weights": "random"}, "evaluation.classifier: missing; task 'vps'"),
        (["evaluation.task=nap"], {"weights": "random"}, "evaluation.task: one of entity, vps, vss, vis"),
        ([], {}, "no weights; give --weights FILE"),
        ([], {"weights": "random"}, "model: missing; with random weights"),
        (["evaluation.evaluators=[{name: semantic}]"], {"weights": "random"}, "'semantic' cannot be computed on"),
        (["evaluation.evaluators=[]"], {"weights": "random"}, "evaluation.evaluators: none given"),
        ([], {"method": "gird"}, "no method called 'gird'"),
        ([], {"method": "grid:cell=2"}, "method.cell: unknown key"),
        ([], {"method": "grid:3"}, "'3' is not key=value"),
    ],
)
def test_invalid_settings_raise(videos, tmp_path, overrides, options, message):
    with pytest.raises(ConfigError, match=message.replace("[", r"\[").replace("(", r"\(")):
        go(videos, tmp_path, *overrides, **options)


def test_methods_that_look_at_no_pixel(videos, tmp_path):
    grid, _ = go(videos, tmp_path / "grid", method="grid:cells=3")
    frame = json.loads((tmp_path / "grid" / "pred.json").read_text())["annotations"][0]["annotations"][0]
    assert [segment["area"] for segment in frame["segments_info"]] == [16 * 27, 16 * 27, 16 * 26] * 3
    whole, _ = go(videos, tmp_path / "whole", method="whole_frame")
    assert whole["metrics"]["STQ^EN-IoU"] == pytest.approx(100)  # every pixel belongs to an entity
    assert whole["metrics"]["VEQ"] < 60
    assert grid["metrics"]["VEQ"] != whole["metrics"]["VEQ"]


@pytest.fixture(scope="module")
def true_masks(videos, tmp_path_factory):
    """The annotation of the videos as a file of detections."""
    contents = json.loads((videos / "panoptic_gt_VIPSeg_val.json").read_text())
    images, found = [], []
    for video in contents["annotations"]:
        for index, frame in enumerate(video["annotations"]):
            images.append({"id": len(images), "video_id": video["video_id"], "frame_id": index, **frame})
            ids = read_id_map(videos / "panomasksRGB" / str(video["video_id"]) / frame["file_name"])
            for segment in frame["segments_info"]:
                mask = rle_encode(ids == segment["id"])
                found.append({"id": len(found), "image_id": images[-1]["id"], "segmentation": mask, "score": 0.9})
    listed = [{"id": video["video_id"], "name": str(video["video_id"])} for video in contents["annotations"]]
    path = tmp_path_factory.mktemp("detections") / "truth.json"
    path.write_text(json.dumps({"videos": listed, "images": images, "annotations": found}))
    return path


AUTOMATIC = "masks.prompting.points_per_side=3,masks.prompting.min_score=-1,masks.prompting.min_stability=0"
METHODS = {  # all of configs/methods
    "online": "",
    "grid": "",
    "whole_frame": "",
    "per_frame": "min_iou=0.3",
    "masa": "weights=random",
    "minvis": "",
    "sam2_everything": AUTOMATIC,
    "sam2_every": f"settings.every=2,{AUTOMATIC}",
    "sam2_masks": "",
    "deva_like": "settings.every=2,settings.clip=2",
}


def test_no_method_is_left_out():
    shipped = {path.stem for path in (ROOT / "configs" / "methods").glob("*.yaml")}
    assert shipped == {*METHODS, "videomt"}  # the last one: tests/unit/engine/methods/test_videomt.py
    described = (ROOT / "EVAL.md").read_text().partition("## Methods")[2].partition("\n## ")[0]
    rows = " ".join(line.split("|")[1] for line in described.splitlines() if line.startswith("| `"))
    assert {name for name in shipped if f"`{name}`" not in rows} == set()


@pytest.mark.parametrize("name", METHODS)
def test_every_method_runs_on_the_synthetic_videos(name, videos, weights, true_masks, tmp_path):
    node = yaml.safe_load((ROOT / "configs" / "methods" / f"{name}.yaml").read_text())
    options = [METHODS[name]]
    if "sam2" in node:
        node["sam2"] = {"model": "sam2_tiny", "weights": "random", **SMALL}
        options += [f"masks.file={true_masks}"] if node["masks"]["name"] == "detections" else []
    file = tmp_path / f"{name}.yaml"
    file.write_text(yaml.safe_dump(node))
    method = f"{file}:{','.join(filter(None, options))}"
    result, complete = go(videos, tmp_path / "out", method=method, weights=str(weights), worst=0, limit_videos=2)
    assert complete
    assert 0 < result["metrics"]["STQ^EN-IoU"] <= 100
    if name == "sam2_masks":  # its first frame is the annotation
        frames = json.loads((tmp_path / "out" / "pred.json").read_text())["annotations"][0]["annotations"]
        truth = json.loads((videos / "panoptic_gt_VIPSeg_val.json").read_text())["annotations"][0]["annotations"]
        areas = [sorted(segment["area"] for segment in side[0]["segments_info"]) for side in (frames, truth)]
        assert areas[0] == areas[1]


def test_given_masks_on_every_frame_are_followed_perfectly_where_they_overlap(videos, true_masks, tmp_path):
    text = f"per_frame:masks.name=detections,masks.file={true_masks},min_iou=0.1"
    result, complete = go(videos, tmp_path, method=text, worst=0)
    assert complete
    assert result["metrics"]["VEQ@1"] == pytest.approx(100)
    assert result["metrics"]["VEQ"] > 70  # fast things change their ids
