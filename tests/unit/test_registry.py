"""Names in YAML become objects; whatever cannot be built is named by its path."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import pytest
from annotated_types import Interval
from omegaconf import OmegaConf

from entitysam.registry import ConfigError, Registry, build

PARTS = Registry("test part")


@PARTS.register("box")
def box(width: int, height: float = 2.0, filled: bool = False, label: str = "", lid=None):
    return width, height, filled, label, lid


@PARTS.register("bag")
class Bag:
    def __init__(self, **contents):
        self.contents = contents


def test_builds_functions_and_classes():
    assert build(PARTS, {"name": "box", "width": 3}) == (3, 2.0, False, "", None)
    assert build(PARTS, {"name": "box", "width": 3, "height": 1}, lid="oak") == (3, 1, False, "", "oak")
    assert build(PARTS, {"name": "bag", "a": 1}, b=2).contents == {"a": 1, "b": 2}


@PARTS.register("shelf")
def shelf(
    root: str | Path,
    sides: Iterable[float] = (0.5, 2.0),
    pair: tuple[int, int] = (1, 2),
    parts: dict[str, Any] | None = None,
    floors: Annotated[int, Interval(ge=1, le=64)] = 3,
):
    return root, sides, pair, parts, floors


def test_lists_of_yaml_are_taken_for_any_sequence():
    node = {"name": "shelf", "root": "oak", "sides": [0, 1.5], "pair": [3, 4], "parts": {"a": [1]}, "floors": 64}
    assert build(PARTS, node) == ("oak", [0, 1.5], [3, 4], {"a": [1]}, 64)
    assert build(PARTS, OmegaConf.create(node)) == ("oak", [0, 1.5], [3, 4], {"a": [1]}, 64)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("root", None),
        ("root", 5),
        ("sides", 5),
        ("sides", "wide"),
        ("sides", [1.0, "2"]),
        ("sides", [float("nan")]),
        ("pair", [1]),
        ("pair", [1, 2.5]),
        ("parts", [1]),
        ("floors", 0),
        ("floors", 65),
        ("floors", True),
        ("floors", 10**400),
    ],
)
def test_wrong_types_and_ranges_are_named(key, value):
    with pytest.raises(ConfigError, match=rf"^shelves\.{key}.*: must be ") as error:
        build(PARTS, {"name": "shelf", "root": "oak", key: value}, "shelves")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 250


@pytest.mark.parametrize("node", [5, None, [1], "box"])
def test_a_node_must_be_a_mapping(node):
    with pytest.raises(ConfigError, match=r"^model\.part: must be a mapping with a 'name'"):
        build(PARTS, node, "model.part")


def test_the_node_stays_as_it_is():
    node = {"name": "box", "width": 3}
    build(PARTS, node)
    assert node == {"name": "box", "width": 3}


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"width": 3}, "model.part: needs a 'name', one of: bag, box"),
        ({"name": "crate"}, "model.part.name: no test part called 'crate'; known: bag, box"),
        ({"name": "box"}, "model.part.width: missing; 'box' needs it"),
        ({"name": "box", "witdh": 3}, "model.part.witdh: unknown key; 'box' takes width, height, filled, label"),
        ({"name": "box", "width": 3, "lid": 1}, "model.part.lid: unknown key"),
        ({"name": "box", "width": "wide"}, "model.part.width: must be int, not 'wide'"),
        ({"name": "box", "width": 2.5}, "model.part.width: must be int, not '2.5'"),
        ({"name": "box", "width": True}, "model.part.width: must be int, not 'True'"),
        ({"name": "box", "width": None}, "model.part.width: must be int, not 'None'"),
        ({"name": "box", "width": 3, "height": "tall"}, "model.part.height: must be float, not 'tall'"),
        ({"name": "box", "width": 3, "filled": 1}, "model.part.filled: must be bool, not '1'"),
    ],
)
def test_what_cannot_be_built_is_named(node, message):
    with pytest.raises(ConfigError) as error:
        build(PARTS, node, "model.part", lid="oak")
    assert str(error.value).startswith(message)


def test_a_name_is_taken_once():
    with pytest.raises(AssertionError, match="box"):
        PARTS.register("box")(box)
