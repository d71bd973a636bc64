"""The open results of a server, and which tab may see which."""

import hashlib
import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from typing import Any

from entitysam.serve.opened import OpenedResult

TAB = re.compile(r"[0-9a-f]{32,64}")  # 128 random bits or more: who knows it is the tab


class NotFoundError(LookupError):
    """A result, job or file that does not exist, or that this tab may not see: the answer is the same."""


@dataclass
class Entry:
    """A result in the workspace.

    Attributes:
        result: the open result; None while it is made.
        owner: the tab that may see it; None = every tab.
        readers: further tabs that opened a link to it.
        link: the text that a link to it carries; "" = not shared.
    """

    key: str
    title: str
    result: OpenedResult | None
    owner: str | None = None
    readers: set[str] = field(default_factory=set)
    link: str = ""

    def is_visible(self, tab: str) -> bool:
        return self.owner is None or tab == self.owner or tab in self.readers


class Workspace:
    """Results by random keys, and a counter of changes. For several threads."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._lock = RLock()
        self.version = 0
        self.closing = False

    def add(self, title: str, result: OpenedResult | None, owner: str | None = None, key: str | None = None) -> Entry:
        """Adds a result; the key is random where none is given."""
        with self._lock:
            entry = Entry(key or secrets.token_hex(8), title, result, owner)
            self._entries[entry.key] = entry
            self.announce()
            return entry

    def open_folder(self, folder: Path, source: dict[str, Any] | None = None) -> Entry:
        """Opens a result that every tab may see; once, where a folder is named twice.

        The key is that of the folder: pages that are open when the server ends go on with the next one.

        Raises:
            InputError, JournalError, OutputError: see `OpenedResult`.
        """
        key = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
        with self._lock:
            if key in self._entries:
                return self._entries[key]
            result = OpenedResult(folder, source)
            return self.add(result.saved.video_id, result, key=key)

    def remove(self, key: str) -> None:
        """Closes a result; its files stay."""
        with self._lock:
            entry = self._entries.pop(key, None)
            self.announce()
        if entry is not None and entry.result is not None:
            entry.result.close()

    def entry(self, key: str, tab: str) -> Entry:
        """
        Raises:
            NotFoundError: there is none, or the tab may not see it.
        """
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or not entry.is_visible(tab):
                raise NotFoundError("there is no such result")
            return entry

    def result(self, key: str, tab: str) -> OpenedResult:
        """The open result of a key; raises as `entry`."""
        result = self.entry(key, tab).result
        if result is None:
            raise NotFoundError("the result is not finished")
        return result

    def visible(self, tab: str) -> list[Entry]:
        with self._lock:
            return [entry for entry in self._entries.values() if entry.is_visible(tab)]

    def share(self, key: str, tab: str) -> str:
        """The text of a link that lets other tabs see a result."""
        with self._lock:
            entry = self.entry(key, tab)
            entry.link = entry.link or secrets.token_hex(16)
            return entry.link

    def follow(self, link: str, tab: str) -> Entry:
        """Lets a tab see the result of a link.

        Raises:
            NotFoundError: no result has this link.
        """
        with self._lock:
            for entry in self._entries.values():
                if entry.link and secrets.compare_digest(entry.link.encode(), link.encode()):
                    entry.readers.add(tab)
                    self.announce()
                    return entry
            raise NotFoundError("the link leads nowhere")

    def announce(self) -> None:
        """Tells tabs that something has changed."""
        with self._lock:
            self.version += 1

    def close(self) -> None:
        self.closing = True
        with self._lock:
            entries: Iterable[Entry] = list(self._entries.values())
        for entry in entries:
            if entry.result is not None:
                entry.result.close()
