"""Images of every mode become uint8 RGB; EXIF rotation is applied; broken files are named."""

import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from entitysam.io.readers.images import image_size, read_image
from entitysam.io.readers.source import InputError, open_frames

RAMP = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10


def test_grey_and_bilevel(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), np.repeat(RAMP[..., None], 3, 2))
    Image.fromarray(RAMP > 100).save(tmp_path / "bilevel.png")
    np.testing.assert_array_equal(read_image(tmp_path / "bilevel.png")[..., 1], (RAMP > 100) * 255)


def test_sixteen_bits_are_scaled_over_the_full_range(tmp_path):
    deep = np.array([[0, 128, 129, 257 * 7, 257 * 128, 65535]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(deep).save(tmp_path / "deep.tif")
    for name in ("deep.png", "deep.tif"):
        np.testing.assert_array_equal(read_image(tmp_path / name)[0, :, 2], [0, 0, 1, 7, 128, 255])


def test_palette_with_and_without_transparency(tmp_path):
    image = Image.new("P", (3, 1))
    image.putpalette([0, 0, 0, 250, 10, 20, 30, 240, 50])
    image.putdata([0, 1, 2])
    image.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_image(tmp_path / "palette.png")[0], [[0, 0, 0], [250, 10, 20], [30, 240, 50]])
    image.save(tmp_path / "hole.png", transparency=1)
    np.testing.assert_array_equal(read_image(tmp_path / "hole.png")[0], [[0, 0, 0], [0, 0, 0], [30, 240, 50]])


def test_alpha_is_composited_on_black(tmp_path):
    rgba = np.array([[[200, 100, 50, 255], [200, 100, 50, 128], [200, 100, 50, 0]]], np.uint8)
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    np.testing.assert_array_equal(read_image(tmp_path / "rgba.png")[0], [[200, 100, 50], [100, 50, 25], [0, 0, 0]])
    Image.fromarray(rgba[..., [0, 3]], mode="LA").save(tmp_path / "la.png")
    np.testing.assert_array_equal(read_image(tmp_path / "la.png")[0, :, 0], [200, 100, 0])


def test_cmyk(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "print.jpg", quality=95)
    red = read_image(tmp_path / "print.jpg").mean((0, 1))
    assert red[0] > 240
    assert red[1:].max() < 15


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    """The stored pixels of each orientation, by the EXIF table: where row 0 and column 0 of the file are seen."""
    seen = RAMP
    stored = {
        1: seen,
        2: seen[:, ::-1],
        3: seen[::-1, ::-1],
        4: seen[::-1],
        5: seen.T,
        6: np.rot90(seen),
        7: np.rot90(seen, 2).T,
        8: np.rot90(seen, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "phone.png"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
    np.testing.assert_array_equal(read_image(path)[..., 0], seen)
    assert image_size(path) == (6, 4)
    with open_frames(path) as source:
        assert (source.width, source.height) == (6, 4)


def test_a_folder_may_mix_orientations_that_look_alike(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RAMP).save(tmp_path / "1.png")
    Image.fromarray(np.ascontiguousarray(np.rot90(RAMP))).save(tmp_path / "2.png", exif=exif)
    first, second = open_frames(tmp_path)
    np.testing.assert_array_equal(first, second)


def test_a_broken_image_is_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for name in ("1.jpg", "2.jpg"):
        Image.fromarray(noise).save(tmp_path / name)
    data = (tmp_path / "2.jpg").read_bytes()
    (tmp_path / "2.jpg").write_bytes(data[: len(data) // 2])
    source = open_frames(tmp_path)
    with pytest.raises(InputError, match=r"2\.jpg: the image cannot be read"):
        list(source)
    assert source.decoded == 1


def test_pages_of_a_tiff_and_frames_of_animations_are_frames(tmp_path):
    frames = [np.full((20, 30, 3), 20 + 40 * index, np.uint8) for index in range(4)]
    first, *others = map(Image.fromarray, frames)
    first.save(tmp_path / "pages.tif", save_all=True, append_images=others)
    first.save(
        tmp_path / "moving.webp", save_all=True, append_images=others, duration=[100, 200, 300, 400], lossless=True
    )
    first.save(tmp_path / "moving.png", save_all=True, append_images=others, duration=250)
    times = {"pages.tif": [None] * 4, "moving.webp": [0, 0.1, 0.3, 0.6], "moving.png": [0, 0.25, 0.5, 0.75]}
    for name, expected in times.items():
        with open_frames(tmp_path / name) as source:
            assert source.num_frames == 4
            read = list(source)
            assert [source.time(index) for index in range(4)] == pytest.approx(expected)
            assert [source.name(index) for index in range(4)] == ["00000", "00001", "00002", "00003"]
            assert source.warnings == []
        np.testing.assert_array_equal(read, frames)
    assert open_frames(tmp_path / "moving.png").fps == pytest.approx(4)
    np.testing.assert_array_equal(list(open_frames(tmp_path / "pages.tif", stride=3)), frames[::3])


def test_the_poster_of_an_animated_png_is_no_frame(tmp_path):
    poster, *others = (Image.new("RGB", (8, 8), (value, 0, 0)) for value in (250, 10, 20))
    poster.save(tmp_path / "a.png", save_all=True, append_images=others, default_image=True, duration=100)
    assert [int(frame[0, 0, 0]) for frame in open_frames(tmp_path / "a.png")] == [10, 20]


def test_pages_of_different_sizes_are_refused(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.tif", save_all=True, append_images=[Image.new("RGB", (4, 8))])
    with pytest.raises(InputError, match=r"a\.tif: page 1 is 4x8, not 8x8 of the first"):
        open_frames(tmp_path / "a.tif")


def test_further_pages_of_files_in_a_folder_are_mentioned(tmp_path):
    page = Image.new("RGB", (8, 8))
    page.save(tmp_path / "1.tif")
    page.save(tmp_path / "2.tif", save_all=True, append_images=[page])
    source = open_frames(tmp_path)
    assert source.num_frames == 2
    assert "only the first page of 2.tif" in source.warnings[0]


def test_floating_point_images_from_0_to_1_are_scaled_and_the_guess_is_stated(tmp_path):
    values = np.array([[0, 0.25, 0.5, 1, np.nan]], np.float32)
    Image.fromarray(values).save(tmp_path / "a.tif")
    source = open_frames(tmp_path / "a.tif")
    np.testing.assert_array_equal(next(iter(source))[0, :, 1], [0, 64, 128, 255, 0])
    assert "taken as 0..1" in source.warnings[0]
    Image.fromarray(values * 200).save(tmp_path / "a.tif")
    source = open_frames(tmp_path / "a.tif")
    np.testing.assert_array_equal(next(iter(source))[0, :4, 1], [0, 50, 100, 200])
    assert "largest value is 200" in source.warnings[0]


def test_twelve_bits_in_sixteen_are_scaled_for_all_frames_alike(tmp_path):
    for name, white in [("1", 400), ("2", 4095)]:
        Image.fromarray(np.array([[0, white // 2, white]], np.uint16)).save(tmp_path / f"{name}.png")
    source = open_frames(tmp_path)
    first, second = source
    np.testing.assert_array_equal(first[0, :, 0], [0, 12, 25])
    np.testing.assert_array_equal(second[0, :, 0], [0, 127, 255])
    assert "taken as 0..4095" in source.warnings[0]


def test_a_stated_depth_is_no_guess(tmp_path):
    """PNG's sBIT chunk says that 12 of the 16 bits count."""
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[0, 300]], np.uint16)).save(path)
    data = path.read_bytes()
    chunk = b"sBIT" + bytes([12])
    end_of_header = 8 + 25
    path.write_bytes(
        data[:end_of_header]
        + (1).to_bytes(4, "big")
        + chunk
        + zlib.crc32(chunk).to_bytes(4, "big")
        + data[end_of_header:]
    )
    source = open_frames(path)
    assert int(next(iter(source))[0, 1, 0]) == round(300 / 4095 * 255)
    assert source.warnings == []


def test_twelve_bits_of_colour(tmp_path):
    deep = np.array([[[4095, 2048, 0], [0, 1024, 4095]]], np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), deep[..., ::-1])
    source = open_frames(tmp_path / "a.png")
    np.testing.assert_array_equal(next(iter(source)), [[[255, 128, 0], [0, 64, 255]]])
    assert "taken as 0..4095" in source.warnings[0]
