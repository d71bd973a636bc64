"""Names from files never leave their folder."""

import pytest

from entitysam.io.files import whole_file
from entitysam.io.paths import UnsafePathError, join_inside


@pytest.mark.parametrize("name", ["a.png", "clip/a.png", "val/v_1/00.jpg", "..a/b..", "a b/ü.jpg", "./a.png", "1"])
def test_names_below_the_folder_are_joined(tmp_path, name):
    assert join_inside(tmp_path, name, "x.json") == tmp_path / name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../victim.png", "leaves its folder"),
        ("a/../../victim.png", "leaves its folder"),
        ("a\\..\\victim.png", "leaves its folder"),
        ("/etc/victim.png", "not relative"),
        ("\\\\server\\share", "not relative"),
        ("C:\\victim.png", "not relative"),
        ("c:victim.png", "not relative"),
        ("", "names no file"),
        (".", "names no file"),
        ("a\x00b", "control characters"),
        ("a\nb", "control characters"),
        ("\ud800.png", "no file name can have"),
        ("a" * 256, "too long"),
        ("a/" * 600, "too long"),
        (7, "is a int"),
        (None, "is a NoneType"),
        (["a"], "is a list"),
    ],
)
def test_other_names_raise_and_name_the_file(tmp_path, name, reason):
    with pytest.raises(UnsafePathError, match=r"^x.json: frame 3: the file name ") as error:
        join_inside(tmp_path, name, "x.json: frame 3")
    assert reason in str(error.value)
    assert len(str(error.value)) < 200


def test_symbolic_links_are_followed_only_when_asked_for(tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (inside / "folder").symlink_to(outside)
    (inside / "file.png").symlink_to(outside / "victim.png")
    for name in ("folder/a.png", "file.png"):
        assert join_inside(inside, name, "x.json", follow_links=True) == inside / name
        with pytest.raises(UnsafePathError, match="symbolic link"):
            join_inside(inside, name, "x.json")
    linked_root = tmp_path / "root"
    linked_root.symlink_to(inside)
    assert join_inside(linked_root, "a.png", "x.json") == linked_root / "a.png"


def test_a_link_under_the_temporary_name_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    out = tmp_path / "out"
    out.mkdir()
    (out / ".a.txt.part").symlink_to(victim)
    with whole_file(out / "a.txt") as temporary:
        temporary.write_text("new")
    assert victim.read_text() == "mine"
    assert (out / "a.txt").read_text() == "new"
    assert not (out / "a.txt").is_symlink()
