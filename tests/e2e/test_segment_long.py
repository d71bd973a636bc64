"""`entitysam segment --window`, `--tiles` and `--entities` end to end, with a small random network."""

import json

import numpy as np
import pytest
from PIL import Image

from entitysam.cli import main
from entitysam.io.id_maps import read_ids

FRAMES, SIZE = 6, (64, 96)
SMALL = ["--model", "tiny_scratch", "--weights", "random", "--image-size", "64", "--device", "cpu", "--quiet"]
SMALL += ["--threshold", "0", "--warmup-frames", "0", "model.num_entities=6", "inference.overlap_threshold=0"]


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames")
    for index in range(FRAMES):
        image = np.random.default_rng(0).integers(60, 120, (*SIZE, 3), dtype=np.uint8)
        image[16:48, 8 + 6 * index : 40 + 6 * index] = (230, 40, 40)
        Image.fromarray(image).save(folder / f"{index:03d}.png")
    return folder


def segment(frames, out, *options):
    assert main(["segment", str(frames), "-o", str(out), *SMALL, *options]) == 0
    masks = np.stack([read_ids(path) for path in sorted((out / "masks").iterdir())])
    assert masks.shape == (FRAMES, *SIZE)
    tracks = json.loads((out / "tracks.json").read_text())["tracks"]
    assert [track["id"] for track in tracks] == [int(number) for number in np.unique(masks) if number]
    return masks


def test_saturation_is_reported(frames, tmp_path, capsys):
    assert segment(frames, tmp_path / "out", "model.num_entities=1", "inference.mask_threshold=0").any()
    message = "all 1 queries show an entity, others may be missing: --entities 2 or --tiles 2x2 finds more"
    assert message in capsys.readouterr().err


def test_one_window_is_the_offline_result(frames, tmp_path):
    expected = segment(frames, tmp_path / "offline")
    np.testing.assert_array_equal(segment(frames, tmp_path / "window", "--window", str(FRAMES)), expected)
    assert segment(frames, tmp_path / "windows", "--window", "3").any()


def test_tiles_show_more_entities_than_queries(frames, tmp_path):
    assert len(np.unique(segment(frames, tmp_path / "tiles", "--tiles", "1x3"))) > 7
    assert segment(frames, tmp_path / "online", "--entities", "12", "--online").any()
    assert segment(frames, tmp_path / "both", "--tiles", "1x2", "--window", "4").any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--window", "1"], "--window needs at least 2 frames, not 1"),
        (["--window", "5", "--online"], "--window is for offline runs"),
        (["--entities", "0"], "--entities must be at least 1, not 0"),
        (["--tiles", "2x2", "--resume"], "--resume does not work with --tiles"),
        (["--tiles", "9x9"], "9x9 tiles of a frame of 96x64 pixels are too small"),
    ],
)
def test_bad_options_are_one_line(frames, tmp_path, capsys, options, message):
    assert main(["segment", str(frames), "-o", str(tmp_path / "out"), *SMALL, *options]) != 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "random weights" not in line]
    assert len(lines) == 1
    assert message in lines[0]


def test_a_grid_that_is_none_is_refused(frames, capsys):
    for text in ("2", "0x2", "ax3"):
        with pytest.raises(SystemExit):
            main(["segment", str(frames), "--tiles", text])
        assert f"'{text}' is not ROWSxCOLUMNS" in capsys.readouterr().err
