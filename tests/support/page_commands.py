"""The commands in the code blocks of the pages, and the parsers that know them."""

import argparse
import importlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from entitysam import cli
from entitysam.config import load_config

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^ *(```+|~~~+) *(\S*)")
NEEDS = re.compile(r"^ *<!-- needs: (.+) -->$")
# What a machine without network, data sets, weights, cameras and GPUs cannot run.
KNOWN_NEEDS = {"weights", "data", "gpu", "camera", "server", "cluster", "detectron2", "time"}
COMMENT = re.compile(r"(^|\s)#\s.*$")
ENVIRONMENT = re.compile(r"^(?:[A-Z_]+=\S+ )+")


def pages() -> list[Path]:
    """Every page of the site that people write."""
    listed = [ROOT / name for name in ("README.md", "TRAIN.md", "EVAL.md", "CONTRIBUTING.md", "datasets/README.md")]
    folders = [path for folder in ("docs", "checkpoints") for path in sorted((ROOT / folder).glob("*.md"))]
    return [*listed, *folders]


@dataclass(frozen=True)
class Block:
    """A fenced code block.

    Attributes:
        page: relative to the repository.
        line: of its first line, from 1.
        language: after the fence; "" for commands.
        needs: what it needs to be run; empty: it runs as it stands.
        lines: without indentation; continued lines are joined.
    """

    page: str
    line: int
    language: str
    needs: frozenset[str]
    lines: tuple[str, ...]

    def text(self) -> str:
        """The block as it stands on the page."""
        lines = (ROOT / self.page).read_text(encoding="utf-8").splitlines()
        end = next(index for index in range(self.line - 1, len(lines)) if lines[index].strip() == "```")
        return "\n".join(lines[self.line - 1 : end])

    def commands(self) -> list[str]:
        """Lines that call a program of the project, without comments."""
        if self.language not in ("", "bash", "sh", "console"):
            return []
        bare = (COMMENT.sub("", line).rstrip() for line in self.lines)
        return [line for line in bare if line and not line.startswith("#") and is_command(line)]


def is_command(line: str) -> bool:
    """Whether a line calls a program of the project."""
    return any(programs(line))


def programs(line: str) -> Iterator[list[str]]:
    """The words of each call of a program of the project in a line; pipes are split."""
    for part in ENVIRONMENT.sub("", line).split(" | "):
        part = part.split("--wrap='")[-1].removesuffix("'") if "--wrap='" in part else part
        part = re.sub(r"\$\([^)]*\)", "0", part)
        for piece in part.split(" && "):
            piece = piece.strip().split(" >")[0]
            if re.match(r"(entitysam|python tools/\w+\.py|make|srun torchrun|torchrun)( |$)", piece):
                yield shlex.split(piece)


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found, needs, lines = [], frozenset[str](), page.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        marker, fence = NEEDS.match(lines[number]), FENCE.match(lines[number])
        if marker:
            needs = frozenset(part.strip() for part in marker[1].split(","))
        elif fence:
            start, indent = number + 1, len(lines[number]) - len(lines[number].lstrip())
            end = next(i for i in range(start, len(lines)) if lines[i].strip() == fence[1])
            content = "\n".join(line[indent:] for line in lines[start:end])
            joined = re.sub(r" *\\\n *", " ", content).split("\n")
            found.append(
                Block(str(page.relative_to(ROOT)), start + 1, fence[2], needs, tuple(line.strip() for line in joined))
            )
            needs, number = frozenset(), end
        elif lines[number].strip():
            needs = frozenset()
        number += 1
    return found


@cache
def tool_parser(name: str) -> argparse.ArgumentParser:
    return importlib.import_module(name).parser()


@cache
def make_targets() -> frozenset[str]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return frozenset(re.findall(r"^([a-z][a-z-]*):", text, re.MULTILINE))


def check(words: list[str]) -> None:
    """Parses a call as its program would, and its config with all overrides.

    Raises:
        SystemExit: arguments that the program's parser refuses.
        ConfigError: a config or key that is not there.
        AssertionError: no such target of make.
    """
    if words[0] == "make":
        targets = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
        assert set(targets) <= make_targets(), f"no target {targets}"
    elif words[0] == "entitysam":
        cli.parse(words[1:])
    else:
        start = next(index for index, word in enumerate(words) if word.startswith("tools/"))
        tool, rest = Path(words[start]).stem, words[start + 1 :]
        parser = tool_parser(tool)
        intermixed = tool in ("train_net", "eval_net")
        arguments = parser.parse_intermixed_args(rest) if intermixed else parser.parse_args(rest)
        if intermixed and not getattr(arguments, "compare", None):
            load_config(arguments.config, arguments.overrides)
