"""What a user may name, and the manifest of it. The files are empty: nothing is opened here."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from entitysam.bulk.inputs import list_clips
from entitysam.bulk.manifest import Manifest, key_of
from entitysam.bulk.settings import Clip
from entitysam.io.readers.base import InputError


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def names(*inputs):
    return [clip.id for clip in list_clips([str(text) for text in inputs])]


def test_folders_give_videos_and_folders_of_images(tmp_path):
    touch(tmp_path, "b.mp4", "a.MKV", "notes.txt", ".hidden.mp4", "deep/er/c.webm", "deep/er/poster.jpg")
    touch(tmp_path, "frames/000.jpg", "frames/001.jpg", ".cache/d.mp4")
    assert names(tmp_path) == ["a", "b", "deep/er/c", "frames"]
    assert names(tmp_path / "frames") == ["frames"]
    assert names(f"{tmp_path}/**/*.mp4", tmp_path / "frames") == ["b", "frames"]
    assert names(f"{tmp_path}/*/*/*.webm") == ["deep/er/c"]


def test_lists_and_manifests(tmp_path):
    (tmp_path / "list.txt").write_text(
        "\ufeffa.mp4\n\n../other/b c.mp4\nhttps://host/x%20y.mp4?key=1\n", encoding="utf-8"
    )
    clips = list(list_clips([str(tmp_path / "list.txt")]))
    assert [clip.id for clip in clips] == ["a", "b c", "x y"]
    assert clips[1].path == str(tmp_path.parent / "other" / "b c.mp4")
    assert clips[2].path == "https://host/x%20y.mp4?key=1"

    (tmp_path / "m.csv").write_text("path,start,end,id,other\na.mp4,1.5,3,007,x\na.mp4,,2,,y\n")
    expected = [Clip("007", str(tmp_path / "a.mp4"), 1.5, 3.0), Clip("a", str(tmp_path / "a.mp4"), None, 2.0)]
    assert list(list_clips([str(tmp_path / "m.csv")])) == expected
    table = pa.table({"id": ["007", None], "end": [3, 2], "start": [1.5, None], "path": ["a.mp4", "a.mp4"]})
    pq.write_table(table, tmp_path / "m.parquet")
    assert list(list_clips([str(tmp_path / "m.parquet")])) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,start\na.mp4,1\n", "m.csv: no column 'path' (there are: file, start)"),
        ("path,start\na.mp4,one\n", "m.csv: column 'start' must be numbers, in seconds, not string"),
        ("path,start,end\na.mp4,0,1\nb.mp4,3,2\n", "m.csv: row 2: start 3 and end 2 are no section of a video"),
        ("path,id\na.mp4,x\n,y\n", "m.csv: row 2: 'path' is None, not a path or address"),
        ("path\n", "m.csv: no videos"),
        ("", "m.csv: not a manifest that can be read"),
    ],
)
def test_manifests_that_cannot_be_used(tmp_path, text, message):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(InputError) as caught:
        names(tmp_path / "m.csv")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_inputs_that_are_not_there(tmp_path):
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    for name, message in [
        ("none.mp4", "no such file or folder"),
        ("", "no videos"),
        ("*.mp4", "no videos"),
        ("broken.parquet", "not a manifest that can be read"),
        ("bytes.txt", "not a list of videos"),
    ]:
        with pytest.raises(InputError, match=message):
            names(tmp_path / name)
    with pytest.raises(InputError, match="must be a local file"):
        names("s3://bucket/m.csv")


def test_addresses_of_a_file_system_that_can_list(tmp_path):
    touch(tmp_path, "a.mp4", "deep/b.mp4", "c.txt")
    assert names(tmp_path.as_uri()) == ["a", "deep/b"]
    assert names(f"{tmp_path.as_uri()}/*.mp4") == ["a"]
    assert names("memory://x/y.mp4", "http://host/z.mp4") == ["y", "z"]


def test_a_video_that_is_named_twice_is_one_row(tmp_path):
    clips = [Clip("a", "/a.mp4"), Clip("b", "/b.mp4", 1.0), Clip("a", "/a.mp4"), Clip("c", "/c.mp4")]
    manifest = Manifest.write(tmp_path / "m.parquet", clips)
    assert (len(manifest), manifest.duplicates) == (3, 1)
    assert [clip.id for clip in manifest.clips(np.array([], np.uint64))] == ["a", "b", "c"]
    assert [clip.id for clip in manifest.clips(np.array([key_of("a")], np.uint64))] == ["b", "c"]
    assert list(tmp_path.iterdir()) == [tmp_path / "m.parquet"]


def test_names_that_are_not_utf8_are_one_line(tmp_path):
    with pytest.raises(InputError, match=r"b\\udcff\.mp4'?: the name of a file that is not UTF-8"):
        Manifest.write(tmp_path / "m.parquet", [Clip("a", "/a.mp4"), Clip("b", "/x/b\udcff.mp4")])
    assert not list(tmp_path.iterdir())


def test_two_videos_of_one_name_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"two videos have the name 'a': /x/a\.mp4 and /y/a\.mp4"):
        Manifest.write(tmp_path / "m.parquet", [Clip("a", "/x/a.mp4"), Clip("a", "/y/a.mp4")])
    with pytest.raises(InputError, match=r"/a\.mp4 \(0 s to 1 s\) and /a\.mp4 \(1 s to the end\)"):
        Manifest.write(tmp_path / "m.parquet", [Clip("a", "/a.mp4", None, 1.0), Clip("a", "/a.mp4", 1.0)])
    assert not list(tmp_path.iterdir())
