"""JSON files: what is broken, too deep or of the wrong type is one line with the file and the place."""

import json

import pytest
from typing_extensions import NotRequired, TypedDict

from entitysam.io.json_files import Box, Finite, Integer, JsonError, check_type, keep_other_keys, load_json, read_json


@keep_other_keys
class Item(TypedDict):
    id: Integer
    area: NotRequired[Finite]
    bbox: NotRequired[Box]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "a.json: no such file"),
        ("{", r"a.json: broken JSON \("),
        ("[" * 100_000, r"a.json: broken JSON \(nested too deeply\)"),
        (b"\xff\xfe{", r"a.json: broken JSON \("),
        ("9" * 5000, r"a.json: broken JSON \("),
    ],
)
def test_broken_files(tmp_path, content, message):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(JsonError, match=message):
        load_json(path)
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(JsonError, match=r"folder\.json: cannot be read"):
        load_json(tmp_path / "folder.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"id": 1}, {}]', r"^file: \[1\]: no 'id'$"),
        ('[{"id": Infinity}]', r"^file: \[0\]\.id: .*not inf$"),
        ('[{"id": 1e400}]', r"^file: \[0\]\.id: .*not inf$"),
        ('[{"id": [1]}]', r"^file: \[0\]\.id: .*not \[1\]$"),
        ('[{"id": 1' + "0" * 30 + "}]", r"^file: \[0\]\.id: "),
        ('[{"id": 1, "area": NaN}]', r"^file: \[0\]\.area: .*not nan$"),
        ('[{"id": 1, "bbox": [1, 2, 3]}]', r"^file: \[0\]\.bbox: List should have at least 4 items"),
        ('[{"id": 1, "bbox": [1, 2, 3, Infinity]}]', r"^file: \[0\]\.bbox\[3\]: .*not inf$"),
        ('{"id": 1}', r"^file: Input should be a valid list"),
        ("5", r"^file: Input should be a valid list, not 5$"),
        ('[{"id": "x"}, {"id": "y"}]', r"^file: \[0\]\.id: .*not 'x'; 1 more$"),
    ],
)
def test_wrong_types(text, message):
    with pytest.raises(JsonError, match=message) as caught:
        check_type(json.loads(text), list[Item], "file")
    assert "\n" not in str(caught.value)


def test_what_fits_is_kept():
    value = [{"id": "7", "area": 3, "other": [1]}]
    assert check_type(value, list[Item], "file") == [{"id": 7, "area": 3.0, "other": [1]}]
    with pytest.raises(KeyError):
        check_type(value, list[Item], "file")[0]["bbox"]


@pytest.mark.parametrize(
    "text",
    ['{"id": 1, "area": 2.5}', '{"id": "7", "other": {"a": [1, "\\ud800"]}}', '{"id": 1, "id": 2}', '{"id": NaN}', '{"id": 1e3}',
     '{"area": 1}', "[]", "{", '{"id": 99999999999999999999}', '{"id": 1, "bbox": [1, 2, 3]}', "[" * 100_000, '{"id": true}'],
)  # fmt: skip
def test_reading_in_one_pass_is_reading_in_two(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)

    def outcome(read):
        try:
            return read()
        except JsonError as error:
            return str(error)

    assert outcome(lambda: read_json(path, Item)) == outcome(lambda: check_type(load_json(path), Item, str(path)))
