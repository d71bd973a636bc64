"""Images of every mode become uint8 RGB; EXIF rotation is applied; broken files are named."""

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
