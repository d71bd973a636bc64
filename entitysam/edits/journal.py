"""The journal of edits: an append-only file of JSON lines, with undo and redo without limit.

    {"journal": 1, "result": "1f0c..."}
    {"do": {"kind": "merge", "id": 4, "into": 2}}
    {"undo": 1}
    {"redo": 1}

Undo and redo are lines of their own: nothing is ever taken out of the file. Each line is on the disk before the call returns. A
last line that was cut off (the process was killed while it wrote) is overwritten by the next one.
"""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from entitysam.edits.operations import Edit, EditError, read_edit
from entitysam.io.files import output_errors

VERSION = 1


class JournalError(ValueError):
    """A journal that cannot be used; the message names the file and the line."""


class Journal:
    """The edits of one result.

    Args:
        path: of the file; it is created with the first edit.
        result: what identifies the result that is edited. A journal of another result is set aside under the name
            `<stem>-<its result>.jsonl`.

    Attributes:
        edits: those in force, in order.
        revision: number of lines so far: it grows with every edit, undo and redo.
        set_aside: where the journal of another result now is, or None.

    Raises:
        JournalError: a line that is no edit.
        OutputError: the journal of another result cannot be renamed.
    """

    def __init__(self, path: Path, result: str):
        self.path = path
        self.result = result
        self.edits: list[Edit] = []
        self.revision = 0
        self.set_aside: Path | None = None
        self._undone: list[Edit] = []
        self._end = 0  # bytes of the file that are whole lines
        self._size = 0  # bytes of the file, with a line that was cut off
        self._read()

    @property
    def can_undo(self) -> bool:
        return bool(self.edits)

    @property
    def can_redo(self) -> bool:
        return bool(self._undone)

    @property
    def undone(self) -> list[Edit]:
        """What `redo` would do, the next one first."""
        return self._undone[::-1]

    def do(self, edit: Edit) -> None:
        """Appends an edit; what was undone before can no longer be redone.

        Raises:
            OutputError: the file cannot be written; the edit is not in force then.
            EditError: another program has written to the file.
        """
        self._write({"do": edit.model_dump(mode="json")})
        self._follow({"do": edit})

    def undo(self) -> Edit:
        """Takes back the last edit in force and returns it.

        Raises:
            EditError: there is none.
        """
        if not self.edits:
            raise EditError("there is nothing to undo")
        self._write({"undo": 1})
        self._follow({"undo": 1})
        return self._undone[-1]

    def redo(self) -> Edit:
        """Makes the edit that was undone last again and returns it.

        Raises:
            EditError: there is none.
        """
        if not self._undone:
            raise EditError("there is nothing to redo")
        self._write({"redo": 1})
        self._follow({"redo": 1})
        return self.edits[-1]

    def _follow(self, line: dict[str, Any]) -> None:
        if "do" in line:
            self.edits.append(line["do"])
            self._undone = []
        elif "undo" in line:
            self._undone.append(self.edits.pop())
        else:
            self.edits.append(self._undone.pop())
        self.revision += 1

    def _read(self) -> None:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise JournalError(f"{self.path}: cannot be read ({error.strerror or error})") from error
        whole = content[: content.rfind(b"\n") + 1]  # the rest is a line that was cut off
        lines = whole.split(b"\n")[:-1]
        if not lines:
            self._size = len(content)
            return
        head = self._parse(lines[0], 1)
        if head.get("journal") != VERSION or not isinstance(head.get("result"), str):
            raise JournalError(f"{self.path}: line 1: not a journal of edits of this version")
        if head["result"] != self.result:
            self._put_aside(head["result"])
            return
        self._size = len(content)
        for number, text in enumerate(lines[1:], start=2):
            self._replay(text, number)
        self._end = len(whole)

    def _replay(self, text: bytes, number: int) -> None:
        try:
            line = self._parse(text, number)
            if "do" in line:
                self._follow({"do": read_edit(line["do"])})
            elif "undo" in line or "redo" in line:
                self._follow(line)
            else:
                raise EditError("neither an edit nor undo nor redo")
        except (EditError, IndexError) as error:
            reason = str(error) if isinstance(error, EditError) else "nothing to undo or redo"
            raise JournalError(f"{self.path}: line {number}: {reason}") from None

    def _parse(self, text: bytes, number: int) -> dict[str, Any]:
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            line = None
        if not isinstance(line, dict):
            raise JournalError(f"{self.path}: line {number}: no JSON object")
        return line

    def _put_aside(self, other: str) -> None:
        kept = "".join(c for c in other[:12] if c.isalnum()) or "other"
        target = self.path.with_name(f"{self.path.stem}-{kept}{self.path.suffix}")
        number = 1
        while os.path.lexists(target):
            number += 1
            target = self.path.with_name(f"{self.path.stem}-{kept}-{number}{self.path.suffix}")
        with output_errors(self.path):
            os.rename(self.path, target)
        self.set_aside = target

    def _write(self, line: dict[str, Any]) -> None:
        """Appends a line, whole or not at all."""
        text = json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        if not self._end:
            head = {"journal": VERSION, "result": self.result}
            text = json.dumps(head).encode() + b"\n" + text
        with output_errors(self.path):
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            descriptor = os.open(self.path, flags, 0o666)
            try:
                if os.fstat(descriptor).st_size != self._size:
                    raise EditError(f"{self.path.name} was changed by another program; open the result again")
                self._append(descriptor, text)
            finally:
                os.close(descriptor)
        self._end = self._size = self._end + len(text)

    def _append(self, descriptor: int, text: bytes) -> None:
        os.ftruncate(descriptor, self._end)  # a line that was cut off
        os.lseek(descriptor, self._end, os.SEEK_SET)
        try:
            rest = memoryview(text)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        except OSError:
            with suppress(OSError):
                os.ftruncate(descriptor, self._end)
            self._size = os.fstat(descriptor).st_size
            raise
