"""Methods by name and options."""

import pytest

from entitysam.engine.methods.build import build_method, build_proposals, fingerprint, method_node, parse_options
from entitysam.engine.methods.context import MethodContext
from entitysam.errors import CheckpointError
from entitysam.registry import ConfigError
from entitysam.shipped import shipped_folder

SHIPPED = sorted(path.stem for path in (shipped_folder("configs") / "methods").glob("*.yaml"))


def test_options():
    assert parse_options("grid") == ("grid", {})
    assert parse_options("x:a=1,b.c=0.5,b.d=none,e=FILE") == ("x", {"a": 1, "b": {"c": 0.5, "d": None}, "e": "FILE"})
    with pytest.raises(ConfigError, match="'vit_b' is not key=value"):
        parse_options("esam:vit_b")
    with pytest.raises(ConfigError, match="'a' has a value and keys below it"):
        parse_options("x:a=1,a.b=2")


def test_files_options_and_parts(tmp_path):
    assert method_node("grid:cells=5") == {"name": "grid", "cells": 5}
    node = method_node("sam2_every:settings.every=3,masks.name=esam,masks.model=vit_b")
    assert node["settings"] == {"every": 3}
    assert node["masks"] == {"name": "esam", "model": "vit_b"}  # another part replaces the part
    assert node["sam2"] == {"model": "sam2_small"}
    assert method_node("esam:model=vit_b,min_iou=0.4") == {
        "name": "per_frame",
        "min_iou": 0.4,
        "masks": {"name": "esam", "model": "vit_b"},
    }
    (tmp_path / "mine.yaml").write_text("name: grid\ncells: 2\n")
    assert method_node(f"{tmp_path / 'mine.yaml'}:cells=9") == {"name": "grid", "cells": 9}
    with pytest.raises(ConfigError, match=r"no method called 'gird'; known: deva_like, .*, whole_frame"):
        method_node("gird")
    with pytest.raises(ConfigError, match=r"no file .*none\.yaml"):
        method_node(str(tmp_path / "none.yaml"))
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match=r"list\.yaml: must hold a mapping"):
        method_node(str(tmp_path / "list.yaml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_without_weights_a_method_says_which_it_needs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    node = method_node(name)
    if name in ("grid", "whole_frame"):
        assert hasattr(build_method(node, MethodContext()), "segment")
    else:
        needs = "sam2.1_hiera_small.pt" if "sam2" in node else "no weights; give --weights FILE"
        if name == "videomt":
            needs = r"videomt: no config\.json|pip install 'entitysam\[videomt\]'"
        with pytest.raises((CheckpointError, ConfigError), match=needs):
            build_method(node, MethodContext())


def test_the_fingerprint_knows_the_files(tmp_path):
    file = tmp_path / "a.json"
    file.write_text("[]")
    node = {"name": "x", "masks": {"file": str(file)}}
    before = fingerprint(node)
    assert before == fingerprint(node)
    file.write_text("[1]")
    assert before != fingerprint(node)


def test_proposals():
    with pytest.raises(ConfigError, match="proposals: one of fast, entitysam, esam, sam, not 'magic'"):
        build_proposals("magic", MethodContext())
    with pytest.raises(ConfigError, match="unknown key 'mode'; it takes model"):
        build_proposals("entitysam:mode=tiny", MethodContext())
