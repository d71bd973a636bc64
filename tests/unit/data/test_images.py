"""Images of every mode, and files that are none."""

import numpy as np
import pytest
from PIL import Image

from entitysam.data.images import DataError, read_id_map, read_image
from entitysam.ops import ids_to_rgb

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], axis=-1)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "1", "L", "LA"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    image = Image.fromarray(COLOUR).convert(mode)
    image.save(tmp_path / "a.png")
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected)


def test_16_bit_grey_keeps_its_range(tmp_path):
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.repeat(GREY[..., None], 3, axis=2))


def test_cmyk_jpeg_is_converted(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    red = read_image(tmp_path / "a.jpg")[8, 8]
    assert red[0] > 200
    assert red[1:].max() < 60


def test_exif_rotation_is_applied_unless_only_the_stored_pixels_fit_the_annotation(tmp_path):
    image = Image.fromarray(COLOUR)
    exif = image.getexif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    image.save(tmp_path / "a.png", exif=exif)
    turned = np.rot90(COLOUR, -1)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), turned)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", (8, 6)), turned)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", (6, 8)), COLOUR)


def test_exif_rotation_of_a_square_is_applied(tmp_path):
    image = Image.fromarray(COLOUR[:, :6])
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", (6, 6)), np.rot90(COLOUR[:, :6], -1))


def test_id_maps_use_three_bytes_also_from_a_palette(tmp_path):
    ids = np.array([[0, 1], [300, 2**24 - 1]])
    Image.fromarray(ids_to_rgb(ids)).save(tmp_path / "rgb.png")
    Image.fromarray(ids_to_rgb(ids)).quantize(8).save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_id_map(tmp_path / "rgb.png"), ids)
    assert Image.open(tmp_path / "palette.png").mode == "P"
    np.testing.assert_array_equal(read_id_map(tmp_path / "palette.png"), ids)


def truncate(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.write_bytes(b""), "not an image that can be read"),
        (lambda path: path.write_text("no image"), "not an image that can be read"),
        (lambda path: path.mkdir(), "not an image that can be read"),
        (truncate, "not an image that can be read"),
    ],
)
def test_unreadable_files_are_named(tmp_path, suffix, spoil, message):
    path = tmp_path / f"bad.{suffix}"
    spoil(path)
    for read in (read_image, read_id_map):
        with pytest.raises(DataError, match=f"bad.{suffix}: {message}"):
            read(path)


def test_a_size_that_differs_is_named(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: image is 8x6, its annotation 9x6"):
        read_image(tmp_path / "a.png", (6, 9))


def test_decompression_bombs_are_named(tmp_path):
    path = tmp_path / "bomb.png"
    Image.new("L", (20_000, 10_000)).save(path)
    for read in (read_image, read_id_map):
        with pytest.raises(DataError, match=r"bomb\.png: .*decompression bomb"):
            read(path)
