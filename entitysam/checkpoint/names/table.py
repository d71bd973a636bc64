"""Tables of tensor names: patterns in which `*` stands for any part of a name."""

import re
from collections.abc import Iterable


def pattern_of(name: str) -> re.Pattern[str]:
    """A name of a table as a regular expression: `*` matches any part, brackets are character classes."""
    return re.compile(re.escape(name).replace(r"\*", "(.+)").replace(r"\[", "[").replace(r"\]", "]"))


def translate(name: str, table: Iterable[tuple[re.Pattern[str], str]]) -> str | None:
    """A name by the first matching row, whose parts replace the `*` of the target in order; None without a match."""
    for pattern, target in table:
        match = pattern.fullmatch(name)
        if match:
            for part in match.groups():
                target = target.replace("*", part, 1)
            return target
    return None
