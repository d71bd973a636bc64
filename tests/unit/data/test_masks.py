"""The one entrance for polygons and run-length codes: what pycocotools would crash on raises."""

import math

import numpy as np
import pytest

from entitysam.data.masks import MaskError, check_mask, read_mask
from entitysam.ops import rle_decode, rle_encode


def runs_of(mask):
    """COCO's uncompressed code: lengths of runs of 0 and 1 in turn, column by column."""
    flat = mask.ravel(order="F").astype(int)
    ends = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *ends, flat.size]).tolist()
    return [0, *runs] if flat[0] else runs


def test_codes_of_random_masks_stay_as_they_are():
    rng = np.random.default_rng(0)
    for share in (0, 0.01, 0.5, 0.99, 1):
        for _ in range(20):
            mask = rng.random(rng.integers(1, 60, 2)) < share
            height, width = mask.shape
            code = rle_encode(mask)
            assert read_mask(code, height, width) == code
            assert read_mask(code) == code
            assert read_mask({"size": [height, width], "counts": runs_of(mask)}, height, width) == code
            assert read_mask({**code, "counts": code["counts"].encode()}) == code


def test_polygons_become_codes_of_the_image():
    square = [2.0, 3.0, 8.0, 3.0, 8.0, 6.0, 2.0, 6.0]
    expected = np.zeros((10, 12), bool)
    expected[3:6, 2:8] = True
    np.testing.assert_array_equal(rle_decode(read_mask([square], 10, 12)), expected)
    around = [-3, -3, 15, -3, 15, 13, -3, 13]  # reaches out of the image
    assert rle_decode(read_mask([around], 10, 12)).all()


GOOD = rle_encode(np.eye(4, 5, dtype=bool))
BAD = {
    "nan": [[0, 0, 3, 0, math.nan, 3]],
    "infinity": [[0, 0, math.inf, 0, 3, 3]],
    "far out": [[0, 0, 1e9, 0, 3, 3]],
    "negative far out": [[0, 0, 3, -1e7, 3, 3]],
    "two points": [[0, 0, 3, 3]],
    "odd": [[0, 0, 3, 0, 3, 3, 1]],
    "texts": [["a"] * 6],
    "nested": [[[0, 0], [3, 0], [3, 3]]],
    "box": [0, 0, 3, 3],
    "number": 5,
    "no polygon": [],
    "endless": [[0, 0, 4, 3] * 5000],
    "mapping": {},
    "no counts": {"size": [4, 5]},
    "other size": rle_encode(np.ones((5, 5), bool)),
    "size of texts": {**GOOD, "size": ["4", "5"]},
    "one side": {**GOOD, "size": [20]},
    "huge": {"size": [2**20, 2**20], "counts": [2**40]},
    "counts too few": {"size": [4, 5], "counts": [3, 4]},
    "counts too many": {"size": [4, 5], "counts": [30, 4]},
    "counts negative": {"size": [4, 5], "counts": [30, -10]},
    "counts of halves": {"size": [4, 5], "counts": [9.5, 10.5]},
    "counts of 2^70": {"size": [4, 5], "counts": [2**70]},
    "counts of texts": {"size": [4, 5], "counts": ["20"]},
    "counts cut": {**GOOD, "counts": GOOD["counts"][:-1]},
    "counts break off": {**GOOD, "counts": GOOD["counts"] + "o"},
    "counts empty": {**GOOD, "counts": ""},
    "counts strange": {**GOOD, "counts": "\x00\xff{"},
    "counts not ASCII": {**GOOD, "counts": "é"},
    "counts without end": {**GOOD, "counts": "o" * 20},
    "counts of long numbers": {**GOOD, "counts": "o" * 20 + "0"},
}


@pytest.mark.parametrize("name", BAD)
def test_shapes_that_cannot_be_used_raise(name):
    for read in (read_mask, check_mask):
        with pytest.raises(MaskError):
            read(BAD[name], 4, 5)


def test_polygons_need_the_size_of_their_image():
    with pytest.raises(MaskError, match="size of the image"):
        read_mask([[0, 0, 3, 0, 3, 3]])
