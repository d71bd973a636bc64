"""JSON files of other programs, parsed and checked against types. Every problem is one line with the file and the place.

Types are `TypedDict`s, lists and the bounded numbers below, checked by pydantic. Keys that a type does not name are dropped,
unless the type is decorated with `keep_other_keys`, or refused, with `refuse_other_keys`.
"""

import json
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config

keep_other_keys = with_config(ConfigDict(extra="allow"))
refuse_other_keys = with_config(ConfigDict(extra="forbid"))
Finite = Annotated[float, Field(ge=-(2.0**53), le=2.0**53)]  # no NaN, no infinity; exact as an integer
Integer = Annotated[int, Field(ge=-(2**53), le=2**53)]
Box = Annotated[list[Finite], Field(min_length=4, max_length=4)]  # x, y, width, height in pixels


class JsonError(ValueError):
    """A JSON file that cannot be used; the message names the file, and the place in it where there is one."""


def load_json(path: Path) -> Any:
    """The contents of a JSON file.

    Raises:
        JsonError: missing, unreadable or broken file, or one whose values are nested too deeply.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise JsonError(f"{path}: no such file") from None
    except OSError as error:
        raise JsonError(f"{path}: cannot be read ({error.strerror or error})") from error
    except RecursionError:
        raise JsonError(f"{path}: broken JSON (nested too deeply)") from None
    except ValueError as error:  # includes invalid UTF-8 and integers of thousands of digits
        raise JsonError(f"{path}: broken JSON ({error})") from error


def read_json(path: Path, kind: Any, error_type: type[ValueError] = JsonError) -> Any:
    """`check_type(load_json(path), kind)`, faster: what the type does not name never becomes an object of Python.

    Raises:
        JsonError: as `load_json`.
        JsonError (or `error_type`): as `check_type`.
    """
    with suppress(OSError, ValidationError):
        return _adapter(kind).validate_json(path.read_bytes())
    return check_type(load_json(path), kind, str(path), error_type)  # says what is wrong


def check_type(value: Any, kind: Any, where: str, error_type: type[ValueError] = JsonError) -> Any:
    """The value as `kind`: numbers in texts are converted, everything else must have its type already.

    Args:
        value: parsed JSON.
        kind: a type that pydantic knows.
        where: start of the message, e.g. "pred.json: video 3".
        error_type: what to raise.

    Raises:
        JsonError (or `error_type`): the value does not fit; the message has the first problem.
    """
    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as error:
        raise error_type(f"{where}: {_first_problem(error)}") from None


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _first_problem(error: ValidationError) -> str:
    """The first problem of several, e.g. "annotations[2].id: Input should be a valid integer, not 'x'"."""
    first = error.errors(include_url=False, include_context=False)[0]
    more = f"; {error.error_count() - 1} more" if error.error_count() > 1 else ""
    place = list(first["loc"])
    if first["type"] == "missing":
        key = place.pop()
        problem = f"no '{key}'"
    elif first["type"] == "extra_forbidden":
        problem = f"unknown key '{place.pop()}'"
    else:
        shown = repr(first["input"])
        problem = f"{first['msg']}, not {shown if len(shown) <= 60 else shown[:56] + '...'}"
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
    return (f"{path}: " if path else "") + problem + more
