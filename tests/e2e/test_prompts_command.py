"""`entitysam segment --prompts` in full: result files, names, and one line for what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import entitysam
from entitysam.cli import main
from entitysam.io.id_maps import read_ids
from entitysam.sam2.names import release_size

GOLDEN = Path(__file__).parents[1] / "golden" / "sam2"
SIZE = ["--image-size", "64"]


def run(capsys, *arguments):
    code = main(["segment", *map(str, arguments), "-q"])
    return code, capsys.readouterr().err


@pytest.fixture(scope="module")
def clip(tmp_path_factory, small_video):
    folder = tmp_path_factory.mktemp("clip") / "frames"
    folder.mkdir()
    for index, frame in enumerate(small_video[:4]):
        Image.fromarray(frame).save(folder / f"{index:03d}.png")
    return folder


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps({"prompts": [
        {"id": 2, "frame": 0, "box": [8, 2, 28, 22], "name": "square"},
        {"id": 7, "frame": 1, "points": [[70, 28]]},
    ]}))  # fmt: skip
    return path


def test_prompted_objects_are_written_as_entities_are(clip, prompts, tmp_path, capsys):
    code, shown = run(
        capsys, clip, "-o", tmp_path / "out", "--prompts", prompts, "--model", "sam2_tiny", "--weights", "random", *SIZE
    )
    assert code == 0, shown
    maps = [read_ids(path) for path in sorted((tmp_path / "out" / "masks").glob("*.png"))]
    assert len(maps) == 4
    assert set(np.unique(maps)) <= {0, 2, 7}
    tracks = json.loads((tmp_path / "out" / "tracks.json").read_text())
    named = {track["id"]: track.get("name") for track in tracks["tracks"]}
    assert named.get(2, "square") == "square"
    assert (tmp_path / "out" / "overlay.mp4").is_file()


def test_a_release_file_is_recognised(tmp_path):
    manifest = json.loads((GOLDEN / "manifest_tiny.json").read_text())
    state = {name: torch.zeros(shape) for name, shape in manifest.items()}
    assert release_size(state) == "tiny"
    torch.save({"model": state}, tmp_path / "sam2.1_hiera_tiny.pt")
    opened = entitysam.load_model(tmp_path / "sam2.1_hiera_tiny.pt", device="cpu")
    assert type(opened).__name__ == "SAM2"
    assert opened.image_size == 1024


REFUSED = {
    "--prompts needs SAM 2.1": [],
    "--prompts needs SAM 2.1: --weights": ["--model", "vit-s"],  # whose weights are not downloaded before
    "file of its release), or --model sam2_small": ["--weights", "random"],
    "put sam2.1_hiera_small.pt of its release into checkpoints/": ["--model", "sam2_small"],
    "--prompts does not go together with --online": ["--online"],
    "--prompts does not go together with --resume": ["--resume"],
    "an EntitySAM, not a SAM 2.1, for it lacks SAM 2's mask decoder": ["--weights", "TINY"],
    "an EntitySAM file, which lacks SAM 2's mask decoder and object pointers": [
        "--model",
        "sam2_tiny",
        "--weights",
        "TINY",
    ],
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_refused_in_one_line(clip, prompts, tmp_path, capsys, monkeypatch, message):
    monkeypatch.chdir(tmp_path)
    tiny = str(Path(__file__).parents[2] / "checkpoints" / "entitysam_tiny.safetensors")
    options = [tiny if word == "TINY" else word for word in REFUSED[message]]
    code, shown = run(capsys, clip, "-o", tmp_path / "out", "--prompts", prompts, *options)
    assert code == 2
    assert message in shown
    assert len(shown.strip().splitlines()) == 1
    assert not (tmp_path / "out" / "masks").exists()


def test_prompts_that_do_not_fit_the_video(clip, tmp_path, capsys):
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps({"prompts": [{"id": 1, "frame": 9, "points": [[1, 1]]}]}))
    model = ["--model", "sam2_tiny", "--weights", "random", *SIZE]
    code, shown = run(capsys, clip, "-o", tmp_path / "out", "--prompts", path, *model)
    assert code == 2
    assert "object 1: there is no frame 9; the video has 4 (from 0)" in shown
