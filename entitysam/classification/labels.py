"""Class lists for classifiers. Their names are the only text from a user or a file that enters a prompt."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entitysam.data.categories import read_categories
from entitysam.registry import ConfigError

FREE = "free"
ALIASES = {"coco": "coco_panoptic", "ytvis": "ytvis_2021"}
MAX_LENGTH = 64  # characters in a name
MAX_LABELS = 10_000
FORBIDDEN = re.compile(r"[^\w\s\-.,:;()/&'+]")  # no quotes, brackets, backslashes or control characters


@dataclass(frozen=True)
class Label:
    """One class.

    Attributes:
        category_id: id in the data set's files.
        name: as shown and as written into prompts.
        is_thing: countable; all regions of a stuff class are one segment per video.
        is_background: entities of this class are dropped (instance segmentation).
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
        ConfigError: no categories, an invalid name, or a duplicate name.
    """
    labels = tuple(Label(int(c["id"]), clean_name(str(c["name"])), bool(c.get("isthing", 1))) for c in categories)
    if not 1 <= len(labels) <= MAX_LABELS:
        raise ConfigError(f"a class list needs at least one name and at most {MAX_LABELS}, not {len(labels)}")
    seen: set[str] = set()
    for label in labels:
        if label.name.lower() in seen:
            raise ConfigError(f"the class list has the name '{label.name}' twice")
        seen.add(label.name.lower())
    return labels


def parse_labels(text: str) -> tuple[Label, ...] | None:
    """Parses the class list of a user.

    Args:
        text: a shipped list ("coco", "vipseg", "ytvis_2019", ...), a .txt file with one name per line, names separated
            by commas, or "free".

    Returns:
        the labels; None for free naming.

    Raises:
        ConfigError: see `labels_of`, or the file is not text; FileNotFoundError: no such file.
    """
    text = text.strip()
    if text == FREE:
        return None
    if text.endswith(".txt"):
        names = _read_lines(Path(text))
    elif re.fullmatch(r"\w+", text) and _is_shipped(ALIASES.get(text, text)):
        return labels_of(read_categories(ALIASES.get(text, text)))
    else:
        names = text.split(",")
    given = [name for name in names if name.strip()]
    return labels_of([{"id": index + 1, "name": name} for index, name in enumerate(given)])


def clean_name(text: str) -> str:
    """Normalises a name for prompts: one line of 1 to `MAX_LENGTH` plain characters, blanks instead of underscores.

    Raises:
        ConfigError: the name is empty, too long, or has control characters, quotes or brackets.
    """
    name = re.sub(r"[_ \t]+", " ", text).strip()
    if not name or len(name) > MAX_LENGTH or FORBIDDEN.search(name) or "\n" in name or "\r" in name:
        raise ConfigError(
            f"{text[:MAX_LENGTH]!r} is not a valid class name: 1 to {MAX_LENGTH} plain characters on one line"
        )
    return name


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a UTF-8 text file ({error.reason} at byte {error.start})") from error


def _is_shipped(name: str) -> bool:
    try:
        return bool(read_categories(name))
    except ConfigError:
        return False
