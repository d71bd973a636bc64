"""Result folders of unknown origin: what is read, and what is refused."""

import json

import numpy as np
import pytest
from support.small_result import moving_squares, write_result

from entitysam.engine.labelling.saved_result import SavedResult
from entitysam.io.readers.base import InputError

FRAMES, IDS = moving_squares(4, (24, 32))


@pytest.fixture
def folder(tmp_path):
    return write_result(tmp_path / "squares", FRAMES, IDS)


def change(folder, **values):
    path = folder / "tracks.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_it_is_what_was_written(folder):
    saved = SavedResult.read(folder)
    assert (saved.frames, saved.ids.tolist()) == ([f"{index:05d}" for index in range(4)], [1, 2, 3, 4])
    np.testing.assert_array_equal(saved.areas, [(number == IDS).sum((1, 2)) for number in (1, 2, 3, 4)])
    np.testing.assert_array_equal(saved.frame_scores > 0, saved.areas > 0)
    np.testing.assert_array_equal(list(saved.iter_ids()), IDS)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (["0", "1", "../../x", "3"], "leaves its folder"),
        (["0", "1", "/etc/x", "3"], "not relative"),
        (["0", "1", "a/b", "3"], "no plain file name"),
        (["0", "1", "a\\b", "3"], "no plain file name"),
        (["0", "1", "x\u0000", "3"], "control characters"),
        (["0", "1", "x" * 300, "3"], "too long"),
        (["0", "1", "1", "3"], "a name occurs twice"),
        (["0", "1", 2, "3"], r"frames\[2\]: Input should be a valid string, not 2"),
        (["0", "1", "2"], "4 times for 3 frames|frame 3 of 3"),
    ],
)
def test_names_that_are_no_files_of_the_folder(folder, frames, message):
    change(folder, frames=frames)
    with pytest.raises(InputError, match=message):
        SavedResult.read(folder)


def test_odd_names_that_are_files_are_taken(folder):
    names = ["a b", "ünï", "c.d", "00003"]
    change(folder, frames=names)
    assert SavedResult.read(folder).frames == names


def test_links_are_not_followed(folder, tmp_path):
    mask = folder / "masks" / "00002.png"
    mask.rename(tmp_path / "elsewhere.png")
    mask.symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(InputError, match=r"frames\[2\]: the file name .* symbolic link"):
        SavedResult.read(folder)
    mask.unlink()
    (folder / "masks").rename(tmp_path / "masks")
    (folder / "masks").symlink_to(tmp_path / "masks")
    with pytest.raises(InputError, match="symbolic link"):
        SavedResult.read(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"tracks\.json: broken JSON \("),
        ("[" * 100_000, "nested too deeply"),
        ("[]", r"tracks\.json: .*not \[\]"),
        ('{"video_id": "a"}', r"no 'width'; \d more"),
        ('{"video_id": "a", "width": NaN}', "tracks.json: "),
    ],
)
def test_files_that_cannot_be_read(folder, text, message):
    (folder / "tracks.json").write_text(text)
    with pytest.raises(InputError, match=message):
        SavedResult.read(folder)


def test_a_result_without_masks_is_named_as_such(folder):
    (folder / "segments.json").unlink()
    with pytest.raises(InputError, match=r"no finished result of 'entitysam segment' \(segments.json is missing\)"):
        SavedResult.read(folder)
    (folder / "tracks.txt").touch()
    with pytest.raises(InputError, match="a result of 'entitysam track' without masks"):
        SavedResult.read(folder)
