"""Files of prompts: what is read, and one line for what is refused."""

import json

import numpy as np
import pytest
from PIL import Image

from entitysam.io.json_files import JsonError
from entitysam.io.paths import UnsafePathError
from entitysam.ops import rle_encode
from entitysam.sam2.prompts import PromptFileError, read_prompts


def write(folder, *prompts):
    path = folder / "prompts.json"
    path.write_text(json.dumps({"prompts": list(prompts)}))
    return path


def test_all_kinds_are_read(tmp_path):
    mask = np.zeros((6, 8), bool)
    mask[1:3, 2:5] = True
    (tmp_path / "masks").mkdir()
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "masks" / "dog.png")
    found = read_prompts(write(
        tmp_path,
        {"id": 1, "points": [[3, 4], [5, 6]], "labels": [1, 0]},
        {"id": 2, "frame": 3, "box": [1, 2, 3, 4], "points": [[2, 3]], "name": "cat"},
        {"id": 3, "mask": "masks/dog.png"},
        {"id": 4, "mask": rle_encode(mask)},
    ))  # fmt: skip
    assert (found[0].points, found[0].labels, found[0].frame) == (((3.0, 4.0), (5.0, 6.0)), (1, 0), 0)
    assert (found[1].box, found[1].labels, found[1].name) == ((1.0, 2.0, 3.0, 4.0), (1,), "cat")
    assert (found[2].mask == mask).all()
    assert (found[3].mask == mask).all()


POINT = {"id": 1, "points": [[1, 1]]}
BAD = {
    "no prompts": (),
    "object 1 has two prompts on frame 0": (POINT, {"id": 1, "frame": 0, "box": [0, 0, 2, 2]}),
    "prompt 0: needs points, a box or a mask": ({"id": 1},),
    r"prompt 0: the id must lie in 1\.\.65535, not 0": ({"id": 0, "points": [[1, 1]]},),
    "prompt 1: frames count from 0, not -1": (POINT, {"id": 1, "frame": -1, "points": [[1, 1]]}),
    r"prompt 0: a point is \[x, y\]": ({"id": 1, "points": [[1, 1, 1]]},),
    "2 points and 1 labels": ({"id": 1, "points": [[1, 1], [2, 2]], "labels": [1]},),
    r"prompts\[0\]: unknown key 'lables'": ({"id": 1, "points": [[1, 1]], "lables": [0]},),
    "a mask together with points": ({"id": 1, "points": [[1, 1]], "mask": "m.png"},),
    "is no readable image": ({"id": 1, "mask": "m.png"},),
    "is no run-length code": ({"id": 1, "mask": {"size": 3}},),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_prompts_are_named(tmp_path, message):
    with pytest.raises((PromptFileError, JsonError), match=message):
        read_prompts(write(tmp_path, *BAD[message]))


def test_broken_files(tmp_path):
    with pytest.raises(JsonError, match="no such file"):
        read_prompts(tmp_path / "prompts.json")
    with pytest.raises(JsonError, match=r"prompts\[0\]\.id"):
        read_prompts(write(tmp_path, {"id": "x"}))
    with pytest.raises(UnsafePathError, match="leaves its folder"):
        read_prompts(write(tmp_path, {"id": 1, "mask": "../m.png"}))
