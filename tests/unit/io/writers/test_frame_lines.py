"""`segments.jsonl`: complete lines while the run goes on, after an interruption, and after a resumed run."""

import json

import numpy as np
import pytest

from entitysam.errors import ConfigError
from entitysam.io.writers.annotations import EntityNames
from entitysam.io.writers.frame_lines import read_lines
from entitysam.io.writers.segments import ResultWriter
from entitysam.ops import rle_decode
from entitysam.structures import Event

WIDTH, HEIGHT = 65, 47
SCORES = {1: 0.25, 3: 0.625}


def frame_and_ids(index):
    """A square (id 3) that moves right, and another (id 1) from frame 2 on."""
    ids = np.zeros((HEIGHT, WIDTH), np.int32)
    ids[5:25, 2 + 3 * index : 22 + 3 * index] = 3
    ids[30:, :10] = index >= 2
    return np.full((HEIGHT, WIDTH, 3), 60, np.uint8), ids


def writer_of(folder, **options):
    return ResultWriter(folder, "clip", WIDTH, HEIGHT, 5.0, **options)


def add(writer, index):
    writer.add(f"{index:05d}", *frame_and_ids(index), SCORES, index / 5, [Event("born", 3)] if not index else [])


def lines_of(folder):
    return (folder / "segments.jsonl").read_bytes()


def test_a_line_is_there_as_soon_as_its_frame(tmp_path):
    with writer_of(tmp_path) as writer:
        for index in range(4):
            add(writer, index)
            assert lines_of(tmp_path).endswith(b"\n")
            line = list(read_lines(tmp_path / "segments.jsonl"))[-1]
            assert (line["frame"], line["file_name"], line["time"]) == (index, f"{index:05d}.png", index / 5)
            assert line["events"] == ([] if index else [{"kind": "born", "id": 3}])
            shown = np.zeros((HEIGHT, WIDTH), int)
            for info in line["segments_info"]:
                mask = rle_decode(info["segmentation"])
                shown[mask] = info["id"]
                assert (info["area"], info["score"], info["category_id"]) == (mask.sum(), SCORES[info["id"]], 1)
            np.testing.assert_array_equal(shown, frame_and_ids(index)[1])
        writer.finish(SCORES)
    (video,) = json.loads((tmp_path / "segments.json").read_text())["annotations"]
    for line, frame in zip(read_lines(tmp_path / "segments.jsonl"), video["annotations"], strict=True):
        assert frame["file_name"] == line["file_name"]
        kept = ("id", "bbox", "area", "category_id", "iscrowd")
        assert frame["segments_info"] == [{key: info[key] for key in kept} for info in line["segments_info"]]


def test_a_resumed_run_has_each_line_once(tmp_path):
    with writer_of(tmp_path / "straight") as writer:
        for index in range(5):
            add(writer, index)
    out = tmp_path / "killed"
    with writer_of(out) as writer:
        for index in range(4):
            add(writer, index)
    (out / "segments.jsonl").write_bytes(lines_of(out)[:-20])  # as a kill leaves it
    with writer_of(out, finished=2) as writer:
        for index in range(5):
            add(writer, index)
            assert lines_of(tmp_path / "straight").startswith(lines_of(out))
    assert lines_of(out) == lines_of(tmp_path / "straight")


def test_too_few_lines_to_resume(tmp_path):
    with writer_of(tmp_path) as writer:
        add(writer, 0)
    with pytest.raises(ConfigError, match="has 1 of 3 finished frames; start without --resume"):
        writer_of(tmp_path, finished=3)


def test_lines_with_names_replace_those_without_at_the_end(tmp_path):
    with writer_of(tmp_path) as writer:
        add(writer, 0)
        writer.finish(SCORES)
    before = lines_of(tmp_path)
    names = EntityNames([{"id": 7, "name": "dog", "isthing": 1}], {3: 7}, {3: 0.9})
    with writer_of(tmp_path, names=names) as writer:
        add(writer, 0)
        assert lines_of(tmp_path) == before
        writer.finish(SCORES)
    (line,) = read_lines(tmp_path / "segments.jsonl")
    assert [info["category_id"] for info in line["segments_info"]] == [7]
    assert not list(tmp_path.glob(".*"))
