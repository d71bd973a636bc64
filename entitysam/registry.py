"""Names in YAML -> classes: one registry per kind of part; `build` turns a config node into an object."""

import inspect
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from annotated_types import Interval, MultipleOf
from fvcore.common.registry import Registry as ClassNameRegistry
from omegaconf import OmegaConf

from entitysam.errors import ConfigError as ConfigError

# Ranges of numbers that size a network: a config of a hostile file must not ask for all memory of the machine.
Depth = Annotated[int, Interval(ge=1, le=64)]  # layers
Channels = Annotated[int, Interval(ge=8, le=1024), MultipleOf(8)]
Width = Annotated[int, Interval(ge=1, le=16384)]  # of hidden layers
Count = Annotated[int, Interval(ge=1, le=10000)]  # heads, entities, remembered frames


class Registry(ClassNameRegistry):
    """fvcore's registry with the names of the YAML files instead of class names: `@MODELS.register("hiera")`."""

    def register(self, name: str) -> Callable[[Any], Any]:  # type: ignore[override]
        def decorate(factory: Any) -> Any:
            self._do_register(name, factory)
            return factory

        return decorate


MODELS = Registry("model part")
CRITERIA = Registry("criterion")
DATASETS = Registry("data set")
EVALUATORS = Registry("evaluator")
CLASSIFIERS = Registry("classifier")
METHODS = Registry("method")

# Types in messages, by pydantic's kinds of errors.
NAMES = {"int_type": "int", "int_from_float": "int", "float_type": "float", "bool_type": "bool", "string_type": "str"}


def build(registry: Registry, node: Mapping[str, Any], path: str = "", **children: Any) -> Any:
    """Calls the class or function registered as `node["name"]` with the other keys and the built `children`.

    Args:
        registry: of the kind of part.
        node: mapping with a key `name`; every other key is an argument of the factory. Values are checked strictly
            against the annotations of the factory, except that an integer is a float and a list is a tuple.
        path: of the node in the config, for error messages, e.g. "model.memory".
        children: objects that are already built, passed by keyword.

    Raises:
        ConfigError: no mapping, unknown name, unknown key (named by its path), missing argument, or a value of a wrong
            type or out of its range.
    """
    where = path or registry._name
    if OmegaConf.is_config(node):
        node = OmegaConf.to_container(node, resolve=True)  # type: ignore[assignment]
    if not isinstance(node, Mapping):
        raise ConfigError(f"{where}: must be a mapping with a 'name', not '{_shorten(node)}'")
    arguments = {str(key): value for key, value in node.items()}
    name = arguments.pop("name", None)
    if name is None:
        raise ConfigError(f"{where}: needs a 'name', one of: {', '.join(sorted(registry._obj_map))}")
    if not isinstance(name, str) or name not in registry:
        known = ", ".join(sorted(registry._obj_map))
        raise ConfigError(f"{where}.name: no {registry._name} called '{_shorten(name)}'; known: {known}")
    factory = registry.get(name)
    parameters = inspect.signature(factory).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for key in arguments:
            if key not in parameters or key in children:
                allowed = ", ".join(p for p in parameters if p not in children) or "no keys"
                raise ConfigError(f"{where}.{key}: unknown key; '{name}' takes {allowed}")
    required = (p.name for p in parameters.values() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD)
    for key in required:
        if key not in arguments and key not in children:
            raise ConfigError(f"{where}.{key}: missing; '{name}' needs it")
    for key, value in arguments.items():
        if key in parameters:
            check_value(parameters[key].annotation, value, f"{where}.{key}")
    return factory(**arguments, **children)


def check_value(hint: Any, value: Any, path: str) -> None:
    """Checks a value of a config against an annotation; annotations that are no plain types accept everything.

    Raises:
        ConfigError: a wrong type, a number out of its range, infinite or NaN.
    """
    from pydantic import ValidationError

    adapter = _adapter(hint)
    if adapter is None:
        return
    try:
        adapter.validate_python(value, strict=True)
    except ValidationError as error:
        try:
            adapter.validate_python(_with_tuples(value), strict=True)  # YAML has lists alone
        except ValidationError:
            fault = error.errors()[0]
            reason = NAMES.get(fault["type"], fault["msg"].removeprefix("Input should be "))
            raise ConfigError(f"{path}: must be {reason}, not '{_shorten(value)}'") from None
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply") from None


@lru_cache(maxsize=1000)
def _adapter(hint: Any) -> Any:
    """The validator of an annotation; None where everything is accepted."""
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter
    from pydantic.errors import PydanticSchemaGenerationError

    if hint is inspect.Parameter.empty or hint is Any:
        return None
    try:
        return TypeAdapter(_plain(hint), config=ConfigDict(allow_inf_nan=False))
    except (PydanticSchemaGenerationError, PydanticUserError):
        return None


def _plain(hint: Any) -> Any:
    """An annotation in the types that YAML has: paths are texts, and iterables are lists."""
    if hint is Path:
        return Path | str
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return Union[tuple(_plain(argument) for argument in arguments)]  # noqa: UP007  (made at run time)
    return Sequence[arguments] if origin is Iterable else hint  # type: ignore[valid-type]


def _with_tuples(value: Any) -> Any:
    return tuple(_with_tuples(item) for item in value) if isinstance(value, list) else value


def _shorten(value: Any, length: int = 60) -> str:
    text = str(value)
    return text if len(text) <= length else f"{text[:length]}..."
