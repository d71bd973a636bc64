"""Commands and functions of the project run inside the test process or in a fork of it, which saves the imports."""

import multiprocessing
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing.process import BaseProcess
from subprocess import CompletedProcess
from typing import Any

PATIENCE = 600.0  # seconds until a child counts as hanging


def run_here(monkeypatch: Any, capsys: Any, main: Callable[[], int | None], *arguments: object) -> CompletedProcess:
    """Calls a command's `main` with a command line: its exit status and what it has written, as of a process."""
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", [main.__module__, *map(str, arguments)])
    message: str | int | None
    try:
        message = main()
    except SystemExit as ended:
        message = ended.code  # type: ignore[assignment]
    written = capsys.readouterr()
    code, said = (1, message + "\n") if isinstance(message, str) else (message or 0, "")
    return CompletedProcess(list(arguments), code, written.out, written.err + said)


def forked(work: Callable[[], Any]) -> BaseProcess:
    """Starts `work()` in a child, silently; its exit code is what `work` returns."""

    def child() -> None:
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            code = work()
        os._exit(code or 0)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    return process


def finish(process: BaseProcess) -> int:
    """Waits for a child and returns its exit code."""
    process.join(PATIENCE)
    assert process.exitcode is not None, "hangs"
    return process.exitcode
