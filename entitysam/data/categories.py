"""Category lists in `configs/categories`, for data sets whose files do not name their categories."""

from typing import Any

from entitysam.config import read_shipped


def read_categories(name: str) -> list[dict[str, Any]]:
    """`configs/categories/<name>.yaml` as mappings with `id`, `name`, `isthing`, by ascending id.

    Raises:
        ConfigError: unknown list; the message has the known ones.
    """
    groups = read_shipped("categories", name)
    listed = [
        {"id": number, "name": text, "isthing": flag}
        for group, flag in (("things", 1), ("stuff", 0))
        for number, text in groups.get(group, {}).items()
    ]
    return sorted(listed, key=lambda category: category["id"])
