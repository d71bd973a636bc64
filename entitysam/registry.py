"""Names in YAML -> classes. One registry per kind of part; `build` turns a config node into an object."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from fvcore.common.registry import Registry as ClassNameRegistry

from entitysam.errors import ConfigError as ConfigError


class Registry(ClassNameRegistry):
    """fvcore's registry, with the names of the YAML files instead of class names: `@MODELS.register("hiera")`."""

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

NUMBERS = (int, float, bool)  # arguments with these annotations are checked before they are passed


def build(registry: Registry, node: Mapping[str, Any], path: str = "", **children: Any) -> Any:
    """Calls the class or function that `node["name"]` stands for with the other keys and the built `children`.

    Args:
        registry: where to look the name up.
        node: mapping with a key `name`; every other key is an argument of the factory.
        path: where the node stands in the config, for error messages, e.g. "model.memory".
        children: objects already built, passed on by keyword.

    Raises:
        ConfigError: unknown name, unknown key (named by its path), missing argument, or no number where one is needed.
    """
    arguments = {str(key): value for key, value in node.items()}
    where = path or registry._name
    name = arguments.pop("name", None)
    if name is None:
        raise ConfigError(f"{where}: needs a 'name', one of: {', '.join(sorted(registry._obj_map))}")
    if name not in registry:
        raise ConfigError(
            f"{where}.name: no {registry._name} called '{name}'; known: {', '.join(sorted(registry._obj_map))}"
        )
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
        hint = parameters[key].annotation if key in parameters else None
        if hint in NUMBERS and not _fits(value, hint):
            raise ConfigError(f"{where}.{key}: must be {hint.__name__}, not '{value}'")
    return factory(**arguments, **children)


def _fits(value: Any, hint: type) -> bool:
    """Whether a value of a config may be passed where a number or a truth value is meant."""
    if hint is bool or isinstance(value, bool):
        return isinstance(value, bool) and hint is bool
    return isinstance(value, int if hint is int else int | float)
