"""`entitysam segment-image` from the command line to the files, on a tiny SAM with random weights."""

import json
import os
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("segment_anything", reason="the extra 'sam' is not installed")

from entitysam.cli import main
from entitysam.esam.sam_backend import SAMArchitecture, SAMSegmenter, build_sam
from entitysam.esam.settings import SEGMENTERS
from entitysam.io.id_maps import read_ids
from entitysam.io.result_folder import hold_folder

ANY_MASK = [
    "model.segmenter.name=tiny_sam",
    "model.prompting.points_per_side=4",
    "model.prompting.gallery_points_per_side=5",
    "model.prompting.min_score=-100",
    "model.prompting.min_stability=0",
]
encoded = []


@SEGMENTERS.register("tiny_sam")
def tiny_sam(model, weights, device, amp):
    """Takes the keys of the shipped config."""
    torch.manual_seed(0)
    network = build_sam(SAMArchitecture(32, 2, 2, (1,), image_size=128, channels=32))
    segmenter = SAMSegmenter(network, "cpu")
    encode = segmenter.encode

    def counting(image):
        encoded.append(tuple(image.shape[1:]))
        return encode(image)

    segmenter.encode = counting
    return segmenter


@pytest.fixture
def photos(tmp_path):
    """Five images of different sizes and modes."""
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(folder / "noise2.png")
    Image.fromarray(random.integers(0, 255, (50, 30), dtype=np.uint8)).save(folder / "noise10.jpg")
    Image.fromarray(random.integers(0, 255, (40, 40, 4), dtype=np.uint8)).save(folder / "transparent.png")
    Image.new("RGB", (64, 48)).save(folder / "black.png")
    Image.new("RGB", (1, 1), (200, 10, 10)).save(folder / "dot.png")
    encoded.clear()
    return folder


def test_folder_in_order_with_every_file(photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["segment-image", str(photos), "-o", str(out), "-q", *ANY_MASK]) == 0
    assert "5 of 5 images" in capsys.readouterr().out
    panoptic = json.loads((out / "panoptic.json").read_text())
    names = [image["file_name"] for image in panoptic["images"]]
    assert names == ["black.png", "dot.png", "noise2.png", "noise10.jpg", "transparent.png"]
    for image, annotation in zip(panoptic["images"], panoptic["annotations"]):
        ids = read_ids(out / "masks" / annotation["file_name"])
        assert annotation["image_id"] == image["id"]
        assert ids.shape == (image["height"], image["width"])
        areas = {segment["id"]: segment["area"] for segment in annotation["segments_info"]}
        assert areas == {int(i): int((ids == i).sum()) for i in np.unique(ids) if i}
        scores = [segment["score"] for segment in annotation["segments_info"]]
        assert scores == sorted(scores, reverse=True)
        with Image.open(out / "overlays" / f"{image['file_name'].split('.')[0]}.jpg") as overlay:
            assert overlay.size == (image["width"], image["height"])
    assert sorted(path.name for path in out.iterdir()) == ["masks", "overlays", "panoptic.json"]


def test_explain_shows_every_step(photos, tmp_path):
    out = tmp_path / "out"
    assert main(["segment-image", str(photos / "noise2.png"), "-o", str(out), "-q", "--explain", *ANY_MASK]) == 0
    names = sorted(path.name for path in (out / "explain" / "noise2").iterdir())
    assert names == ["0_superpixels.jpg", "1_amg.jpg", "2_mmg.jpg", "3_emr.jpg", "4_prompts.jpg", "5_usr.jpg"]
    for name in names:
        with Image.open(out / "explain" / "noise2" / name) as image:
            assert image.size == (80, 60)


def test_plain_sam_switches_the_modules_off(photos, tmp_path):
    out = tmp_path / "out"
    arguments = ["segment-image", str(photos / "noise2.png"), "-o", str(out), "-q", "--method", "sam", "--explain"]
    assert main([*arguments, *ANY_MASK]) == 0
    assert sorted(p.name for p in (out / "explain" / "noise2").iterdir()) == ["0_superpixels.jpg", "1_amg.jpg"]


def test_resume_skips_finished_images(photos, tmp_path, monkeypatch):
    from entitysam.esam.segmenter import ESAM

    out, segment = tmp_path / "out", ESAM.segment
    command = ["segment-image", str(photos), "-o", str(out), "-q", *ANY_MASK]

    def stopped(self, image, trace=None):
        if image.shape[:2] == (50, 30):
            raise KeyboardInterrupt
        return segment(self, image, trace)

    monkeypatch.setattr(ESAM, "segment", stopped)
    assert main(command) == 130
    assert not (out / "panoptic.json").exists()
    monkeypatch.setattr(ESAM, "segment", segment)
    encoded.clear()
    assert main([*command, "--resume"]) == 0
    assert encoded == [(50, 30), (40, 40)]
    assert len(json.loads((out / "panoptic.json").read_text())["images"]) == 5

    whole = tmp_path / "whole"
    assert main(["segment-image", str(photos), "-o", str(whole), "-q", *ANY_MASK]) == 0
    assert (whole / "panoptic.json").read_text() == (out / "panoptic.json").read_text()


def test_a_broken_image_among_others_is_skipped_with_a_warning(photos, tmp_path, capsys):
    (photos / "broken.png").write_bytes(b"no image")
    out = tmp_path / "out"
    assert main(["segment-image", str(photos), "-o", str(out), "-q", *ANY_MASK]) == 1
    captured = capsys.readouterr()
    assert "broken.png" in captured.err
    assert "5 of 6 images" in captured.out
    assert len(json.loads((out / "panoptic.json").read_text())["images"]) == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{photos}/nothing.png"], "nothing.png: no such file or folder"),
        (["{photos}/dot.png", "model.refinement.tollerance=1"], "tollerance"),
        (["{photos}/dot.png", "model.superpixels.method=watershed"], "model.superpixels.method: no method called"),
        (["{photos}/dot.png", "model.recovery.join_iou=much"], "model.recovery.join_iou"),
        (
            ["{photos}/noise2.png", "model.max_pixels=100"],
            "noise2.png: the image has 60 x 80 pixels, more than max_pixels",
        ),
    ],
)
def test_bad_input_is_one_line(photos, tmp_path, capsys, words, message):
    words = [word.format(photos=photos) for word in words]
    assert main(["segment-image", words[0], "-o", str(tmp_path / "out"), "-q", *ANY_MASK, *words[1:]]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("folder", "suffix"), [("masks", "png"), ("overlays", "jpg"), ("explain/a", "jpg")])
def test_an_input_is_never_overwritten(tmp_path, capsys, folder, suffix):
    image = tmp_path / "out" / folder / f"a.{suffix}"
    image.parent.mkdir(parents=True)
    Image.new("RGB", (30, 20), (200, 10, 10)).save(image)
    before = image.read_bytes()
    linked = tmp_path / f"a.{suffix}"
    linked.symlink_to(image)
    for source in (image, image.parent, linked):
        assert main(["segment-image", str(source), "-o", str(tmp_path / "out"), "-q", "--explain", *ANY_MASK]) == 2
        assert f"a.{suffix}: is an input and would be overwritten" in capsys.readouterr().err
    assert image.read_bytes() == before
    assert not (tmp_path / "out" / ".resume").exists()


def test_odd_images(tmp_path, capsys):
    """Every mode and shape of an image gives a map of its size; files that are no images are reported one by one."""
    folder = tmp_path / "odd"
    folder.mkdir()
    random = np.random.default_rng(0)
    rgb = Image.fromarray(random.integers(0, 255, (24, 36, 3), dtype=np.uint8))
    for mode in ("1", "L", "LA", "P", "RGBA"):
        rgb.convert("RGB" if mode == "LA" else mode).convert(mode).save(folder / f"mode_{mode}.png")
    rgb.convert("CMYK").save(folder / "mode_CMYK.jpg")
    Image.fromarray(random.integers(0, 65535, (24, 36), dtype=np.uint16)).save(folder / "deep.png")
    Image.new("RGB", (1, 300)).save(folder / "tall.png")
    Image.new("RGB", (700, 1)).save(folder / "wide.png")
    exif = Image.Exif()
    exif[274] = 6  # rotated by 90 degrees
    rgb.save(folder / "turned.jpg", exif=exif)
    good = len(list(folder.iterdir()))
    (folder / "empty.png").touch()
    (folder / "text.jpg").write_text("no image")
    whole = (folder / "deep.png").read_bytes()
    (folder / "torn.png").write_bytes(whole[: len(whole) // 2])
    bomb = bytearray(whole)
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    (folder / "bomb.png").write_bytes(bomb)
    (folder / "folder.png").mkdir()
    out = tmp_path / "out"
    assert main(["segment-image", str(folder), "-o", str(out), "-q", *ANY_MASK]) == 1
    captured = capsys.readouterr()
    assert f"{good} of {good + 4} images" in captured.out
    for name in ("empty.png", "text.jpg", "torn.png", "bomb.png"):
        assert sum(name in line for line in captured.err.splitlines()) == 1, captured.err
    assert "Traceback" not in captured.err
    shapes = {path.stem: read_ids(path).shape for path in (out / "masks").iterdir()}
    assert len(shapes) == good
    assert (shapes["tall"], shapes["wide"], shapes["turned"]) == ((300, 1), (1, 700), (36, 24))


def test_two_images_of_one_name(photos, tmp_path, capsys):
    Image.new("RGB", (4, 4)).save(photos / "dot.jpg")
    assert main(["segment-image", str(photos), "-o", str(tmp_path / "out"), *ANY_MASK]) == 2
    assert "dot.png" in capsys.readouterr().err


def test_offline_without_weights(photos, tmp_path, capsys, monkeypatch):
    import huggingface_hub

    def refuse(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    monkeypatch.chdir(tmp_path)
    assert main(["segment-image", str(photos / "dot.png"), "-o", str(tmp_path / "out"), "--model", "vit_b"]) == 2
    error = capsys.readouterr().err
    assert "sam_vit_b_01ec64.pth" in error
    assert "--weights" in error


def test_two_runs_do_not_write_into_one_folder(photos, tmp_path, capsys):
    out = tmp_path / "out"
    with hold_folder(out):
        assert main(["segment-image", str(photos / "dot.png"), "-o", str(out), "-q", *ANY_MASK]) == 2
        assert f"another run (process {os.getpid()}) is writing there" in capsys.readouterr().err
    assert not out.exists()
    assert main(["segment-image", str(photos / "dot.png"), "-o", str(out), "-q", *ANY_MASK]) == 0
    assert not list(out.glob(".*"))
