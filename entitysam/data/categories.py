"""Category lists that come with the project, for data sets whose files do not name their categories."""

from typing import Any

import yaml

from entitysam.config import shipped_folder
from entitysam.registry import ConfigError


def read_categories(name: str) -> list[dict[str, Any]]:
    """`configs/categories/<name>.yaml` as mappings with `id`, `name`, `isthing`, by ascending id.

    Raises:
        ConfigError: there is no such list; the known ones are named.
    """
    folder = shipped_folder("configs") / "categories"
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
        raise ConfigError(f"no category list '{name}'; known: {known}")
    groups = yaml.safe_load(path.read_text(encoding="utf-8"))
    listed = [
        {"id": number, "name": text, "isthing": flag}
        for group, flag in (("things", 1), ("stuff", 0))
        for number, text in groups.get(group, {}).items()
    ]
    return sorted(listed, key=lambda category: category["id"])
