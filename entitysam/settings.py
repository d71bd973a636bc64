"""Typed settings: text of a command line -> values, and mappings -> settings dataclasses."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from entitysam.registry import ConfigError

SettingsT = TypeVar("SettingsT")

WORDS: dict[str, Any] = {"true": True, "false": False, "null": None, "none": None}


def parse_value(text: str) -> Any:
    """The value of `KEY=text`: an integer, a float, true, false, null, or else the text itself."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return WORDS.get(text.lower(), text)


def read_settings(kind: type[SettingsT], values: Any, path: str, base: SettingsT | None = None) -> SettingsT:
    """A settings dataclass from a mapping.

    Args:
        kind: a dataclass of numbers, texts and truth values.
        values: field -> value; None = no values. Types are checked strictly, except that an integer is a float.
        path: of the mapping in the config, for error messages, e.g. "model.refinement".
        base: settings that give the other fields; None = the defaults of `kind`.

    Raises:
        ConfigError: no mapping, an unknown key, or a wrong type or value. The message starts with the key's path.
    """
    if values is not None and not isinstance(values, Mapping):
        raise ConfigError(f"{path}: must be a mapping of keys to values, not '{_shorten(values)}'")
    hints = get_type_hints(kind)
    checked = {}
    for key, value in (values or {}).items():
        if key not in hints:
            raise ConfigError(f"{path}.{key}: unknown key; known: {', '.join(hints)}")
        try:
            checked[key] = TypeAdapter(hints[key]).validate_python(value, strict=True)
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Input should be ")
            raise ConfigError(f"{path}.{key}: must be {reason}, not '{_shorten(value)}'") from error
    try:
        return kind(**checked) if base is None else dataclasses.replace(base, **checked)  # type: ignore[type-var]
    except ConfigError as error:
        raise ConfigError(f"{path}.{error}") from error


def _shorten(value: Any, length: int = 60) -> str:
    text = str(value)
    return text if len(text) <= length else f"{text[:length]}..."
