"""Options and settings of the commands that name entities."""

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from entitysam.classification.labeller import Labeller
    from entitysam.classification.labels import Label

PREFIX = "classifier."
Naming: TypeAlias = "tuple[Labeller, tuple[Label, ...] | None]"  # the class list is None for free naming


def add_label_arguments(parser: argparse.ArgumentParser) -> None:
    """Which names, and who gives them."""
    group = parser.add_argument_group("names; further settings of the classifier are given by classifier.KEY=VALUE")
    group.add_argument(
        "--labels",
        metavar="LIST",
        help="'person, dog, grass', a list that comes along (coco, vipseg, vspw, ytvis_2019, ytvis_2021, ovis), "
        "a .txt file with a name per line, or 'free' for names without a list",
    )
    group.add_argument("--classifier", choices=("vlm", "clip", "none"),
                       help="vlm: a vision-language model behind an OpenAI-compatible server (default); "
                       "clip: offline")  # fmt: skip
    group.add_argument("--vlm", metavar="MODEL", help="name of the model at the server (default: gpt-4o)")
    group.add_argument("--base-url", metavar="URL",
                       help="of the server, e.g. http://localhost:8000/v1; the key stands in $OPENAI_API_KEY")  # fmt: skip


def split_classifier_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """`classifier.KEY=VALUE` words, without the prefix, and all others."""
    ours = [word.removeprefix(PREFIX) for word in words if word.startswith(PREFIX)]
    return ours, [word for word in words if not word.startswith(PREFIX)]


def classifier_node(
    arguments: argparse.Namespace, words: Sequence[str], start: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The config node that options and words describe.

    Args:
        arguments: with the options of `add_label_arguments`.
        words: KEY=VALUE.
        start: a node that they change; where they name another classifier, nothing of it is left.

    Raises:
        ConfigError: a word that cannot be read.
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
    try:
        given = OmegaConf.merge(OmegaConf.create(node), OmegaConf.from_dotlist(list(words)))
        return OmegaConf.to_container(given)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise ConfigError(f"classifier: {str(error).splitlines()[0]}") from error


def open_labeller(arguments: argparse.Namespace, words: Sequence[str]) -> "Naming | None":
    """The labeller and the class list of a command line; None without `--labels`.

    Raises:
        ConfigError: what cannot be built, or settings of a classifier and no names.
    """
    from entitysam.registry import ConfigError

    if arguments.labels is None:
        if words or arguments.vlm or arguments.base_url:
            raise ConfigError("settings of a classifier, and no --labels to choose from")
        return None

    from entitysam.classification.labels import parse_labels
    from entitysam.engine.labelling.evaluation import build_labeller

    labels = parse_labels(arguments.labels)
    return build_labeller(classifier_node(arguments, words), "classifier", labels), labels
