"""The class list that a classifier chooses from. Its names are the only words of a user or a file that enter a prompt."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entitysam.data.categories import read_categories
from entitysam.registry import ConfigError

FREE = "free"
ALIASES = {"coco": "coco_panoptic", "ytvis": "ytvis_2021"}
MAX_LENGTH = 64  # characters of a name
UNFIT = re.compile(r"[^\w\s\-.,:;()/&'+]")  # no quotes, brackets, backslashes or control characters


@dataclass(frozen=True)
class Label:
    """One class.

    Attributes:
        category_id: its id in the data set's files.
        name: as it is shown and written into prompts.
        is_thing: countable; the regions of a class that is not ("stuff") are one segment per video.
        is_background: entities of this class are no entities of the task (instance segmentation).
    """

    category_id: int
    name: str
    is_thing: bool = True
    is_background: bool = False


BACKGROUND = Label(-1, "background or another category", is_thing=False, is_background=True)


def labels_of(categories: Sequence[Mapping[str, Any]]) -> tuple[Label, ...]:
    """The class list of a data set.

    Args:
        categories: mappings with `id`, `name`, `isthing`.

    Raises:
        ConfigError: no categories, a name that is no name, or one that occurs twice.
    """
    labels = tuple(Label(int(c["id"]), clean_name(str(c["name"])), bool(c.get("isthing", 1))) for c in categories)
    if not labels:
        raise ConfigError("a class list needs at least one name")
    seen: set[str] = set()
    for label in labels:
        if label.name.lower() in seen:
            raise ConfigError(f"the name '{label.name}' occurs twice in the class list")
        seen.add(label.name.lower())
    return labels


def parse_labels(text: str) -> tuple[Label, ...] | None:
    """The class list that a user names.

    Args:
        text: a list that comes with the project ("coco", "vipseg", "ytvis_2019", ...), a .txt file with one name per
            line, names separated by commas, or "free".

    Returns:
        the labels; None for "free": names without a list.

    Raises:
        ConfigError: see `labels_of`; FileNotFoundError: no such file.
    """
    text = text.strip()
    if text == FREE:
        return None
    if text.endswith(".txt"):
        names = Path(text).read_text(encoding="utf-8").splitlines()
    elif re.fullmatch(r"\w+", text) and _is_shipped(ALIASES.get(text, text)):
        return labels_of(read_categories(ALIASES.get(text, text)))
    else:
        names = text.split(",")
    given = [name for name in names if name.strip()]
    return labels_of([{"id": index + 1, "name": name} for index, name in enumerate(given)])


def clean_name(text: str) -> str:
    """A name fit for a prompt: one line of at most `MAX_LENGTH` plain characters, blanks instead of underscores.

    Raises:
        ConfigError: nothing is left, it is too long, or it has characters that names do not have.
    """
    name = re.sub(r"[_ \t]+", " ", text).strip()
    if not name or len(name) > MAX_LENGTH or UNFIT.search(name) or "\n" in name or "\r" in name:
        raise ConfigError(
            f"{text[:MAX_LENGTH]!r} is no name for a class: 1 to {MAX_LENGTH} plain characters on one line"
        )
    return name


def _is_shipped(name: str) -> bool:
    try:
        return bool(read_categories(name))
    except ConfigError:
        return False
