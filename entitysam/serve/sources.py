"""The videos and streams that the person who starts the server names: the page offers them by name.

Requests carry only such names, so that no path or address of a request is ever opened.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from entitysam.io.readers.base import InputError
from entitysam.serve.workspace import NotFoundError

VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg")
MAX_LISTED = 1000


@dataclass(frozen=True)
class Source:
    """What the page offers.

    Attributes:
        name: shown in the page.
        address: what `open_frames` opens.
        is_live: a stream or camera, which has no end.
    """

    name: str
    address: str
    is_live: bool = False


@dataclass
class Sources:
    """Files and streams by name.

    Attributes:
        given: named one by one.
        folder: with videos, at any depth; it is read again for every list. None = none.

    Raises:
        InputError: two of them have one name; there is no such folder.
    """

    given: Sequence[Source] = ()
    folder: Path | None = None
    _names: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        for source in self.given:
            if source.name in self._names:
                raise InputError(f"two sources have the name '{source.name}'")
            self._names.add(source.name)
        if self.folder is not None and not self.folder.is_dir():
            raise InputError(f"{self.folder}: no such folder")

    def __iter__(self) -> Iterator[Source]:
        """Those that are given, then the first `MAX_LISTED` of the folder in the order of their names."""
        yield from self.given
        found = sorted(self._walk())[:MAX_LISTED]
        for name in found:
            assert self.folder is not None
            if name not in self._names:
                yield Source(name, str(self.folder / name))

    def _walk(self) -> Iterator[str]:
        """Names of the videos below the folder; hidden ones and symbolic links are left out."""
        if self.folder is None:
            return
        for place, below, files in os.walk(self.folder):
            below[:] = [name for name in below if not name.startswith(".")]
            for name in files:
                path = Path(place, name)
                if path.suffix.lower() in VIDEOS and not name.startswith(".") and not path.is_symlink():
                    yield path.relative_to(self.folder).as_posix()

    def find(self, name: str, is_live: bool) -> Source:
        """
        Raises:
            NotFoundError: no source of this kind has the name.
        """
        for source in self:
            if source.name == name and source.is_live == is_live:
                return source
        raise NotFoundError("there is no such source")


def is_live(text: str) -> bool:
    """Whether a word of the command line is a stream's address or a camera's number, and not a file of that name."""
    return not Path(text).exists() and ("://" in text or text.isdecimal())


def live_source(address: str) -> Source:
    """A stream under a name without user and password, or a camera."""
    if address.isdecimal():
        return Source(f"camera {address}", address, is_live=True)
    scheme, _, rest = address.partition("://")
    return Source(f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}", address, is_live=True)
