"""Options and overrides of the commands that label entities."""

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from entitysam.classification.labeller import Labeller
    from entitysam.classification.labels import Label

PREFIX = "classifier."
Labelling: TypeAlias = "tuple[Labeller, tuple[Label, ...] | None]"  # the class list is None for free naming


def add_label_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the class list and the classifier."""
    group = parser.add_argument_group("labels; further settings of the classifier: classifier.KEY=VALUE")
    group.add_argument(
        "--labels",
        metavar="LIST",
        help="'person, dog, grass', a shipped list (coco, vipseg, vspw, ytvis_2019, ytvis_2021, ovis), "
        "a .txt file with one name per line, or 'free' for free naming without a list",
    )
    group.add_argument("--classifier", choices=("vlm", "clip", "none"),
                       help="vlm: a vision-language model behind an OpenAI-compatible server (default); "
                       "clip: offline")  # fmt: skip
    group.add_argument("--vlm", metavar="MODEL", help="name of the model at the server (default: gpt-4o)")
    group.add_argument("--base-url", metavar="URL",
                       help="address of the server, e.g. http://localhost:8000/v1; the key is read from $OPENAI_API_KEY")  # fmt: skip


def split_classifier_overrides(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """The `classifier.KEY=VALUE` overrides without their prefix, and all others."""
    ours = [override.removeprefix(PREFIX) for override in overrides if override.startswith(PREFIX)]
    return ours, [override for override in overrides if not override.startswith(PREFIX)]


def classifier_node(
    arguments: argparse.Namespace, overrides: Sequence[str], start: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The config node of the classifier that options and overrides describe.

    Args:
        arguments: with the options of `add_label_arguments`.
        overrides: KEY=VALUE.
        start: node to override; dropped where the options name another classifier.

    Raises:
        ConfigError: an override that cannot be parsed.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from entitysam.registry import ConfigError

    node: dict[str, Any] = dict(start or {})
    if arguments.classifier not in (None, node.get("name")):
        node = {"name": arguments.classifier}
    node.setdefault("name", "vlm")
    if arguments.vlm:
        node["model"] = arguments.vlm
    if arguments.base_url:
        node["base_url"] = arguments.base_url
    if node["name"] == "vlm" and getattr(arguments, "dry_run", False):
        node["estimate_only"] = True
    try:
        given = OmegaConf.merge(OmegaConf.create(node), OmegaConf.from_dotlist(list(overrides)))
        return OmegaConf.to_container(given)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise ConfigError(f"classifier: {str(error).splitlines()[0]}") from error


def open_labeller(arguments: argparse.Namespace, overrides: Sequence[str]) -> "Labelling | None":
    """The labeller and the class list of a command line; None without `--labels`.

    Raises:
        ConfigError: a part that cannot be built, or settings of a classifier without `--labels`.
    """
    from entitysam.registry import ConfigError

    if arguments.labels is None:
        if overrides or arguments.vlm or arguments.base_url:
            raise ConfigError("settings of a classifier without --labels")
        return None

    from entitysam.classification.labels import parse_labels
    from entitysam.engine.labelling.build import build_labeller

    labels = parse_labels(arguments.labels)
    return build_labeller(classifier_node(arguments, overrides), "classifier", labels), labels
