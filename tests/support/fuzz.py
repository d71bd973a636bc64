"""Seeded mutations of valid files, and commands in child processes with limits of time and memory."""

import copy
import json
import math
import os
import random
import re
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

SECONDS = 60
MEMORY = 4 << 30  # bytes above what the process has when it starts
# What an exception that no one expected looks like: a traceback, or its type before the message.
UNEXPECTED = re.compile(
    r"Traceback \(most recent|(?:error|prepare_data|fuzz): (?:\w+\.)*(?:\w*Error|\w*Exception|RecursionError): "
    r"|int\(\) argument must be|object of type '\w+' has no len|is not (?:iterable|subscriptable|hashable)|unhashable type"
)
NASTY: list[Any] = [
    *(None, True, -1, 0, 1, 2**24, 2**31, 2**63, 10**400, -(2**40), 0.5, 1e308, math.inf, -math.inf, math.nan),
    *("", "x", "../../victim", "/victim", "C:\\victim", "a" * 5000, "\x00", "\n", "nan", "12"),
    *([], {}, [[]], [1], {"a": 1}, [None], [[0, 0, 1e9, 0, 5, 5]], [0, 0, -1, -1], {"size": [5, 5], "counts": "zz"}),
]


def places(node: Any, path: tuple = ()) -> list[tuple]:
    """Paths of all values inside plain data."""
    found = [path] if path else []
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return found + [place for key, value in items for place in places(value, (*path, key))]


def mutate_data(data: Any, rng: random.Random) -> Any:
    """Replaces, removes or duplicates one to three values."""
    data = copy.deepcopy(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        listed = places(data)
        if not listed:
            return rng.choice(NASTY)
        *path, last = rng.choice(listed)
        node = data
        for key in path:
            node = node[key]
        action = rng.random()
        if action < 0.7:
            node[last] = copy.deepcopy(rng.choice(NASTY))
        elif action < 0.85:
            del node[last]
        elif isinstance(node, list):
            node.append(copy.deepcopy(node[last]))
        else:
            node[last] = [node[last]]
    return data


def mutate_bytes(raw: bytes, rng: random.Random) -> bytes:
    """Flips, cuts, repeats or overwrites bytes at random, more often near the start."""
    data = bytearray(raw)
    for _ in range(rng.choice([1, 2, 5, 20])):
        if not data:
            break
        at = int(len(data) * rng.random() ** rng.choice([1, 3]))
        action = rng.randrange(5)
        if action == 0:
            data[at] = rng.randrange(256)
        elif action == 1:
            data[at] ^= 1 << rng.randrange(8)
        elif action == 2:
            del data[at : at + rng.choice([1, 4, 100])]
        elif action == 3:
            data[at:at] = data[at : at + rng.choice([1, 4, 100])]
        else:
            data[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x7f\xff\xff\xff"])
    return bytes(data[: rng.randrange(len(data) + 1)] if rng.random() < 0.2 else data)


def mutate_json(path: Path, rng: random.Random) -> None:
    """Changes a JSON file: mostly its values, at times its text."""
    action = rng.random()
    if action < 0.85:
        path.write_text(json.dumps(mutate_data(json.loads(path.read_text()), rng)))
    elif action < 0.9:
        path.write_text(rng.choice(["[", '{"a":']) * 100_000)
    else:
        path.write_bytes(mutate_bytes(path.read_bytes(), rng))


def run_limited(command: Callable[[], Any], log: Path) -> str:
    """Runs a command in a fork of this process.

    Returns:
        "" where it ended in good order, with or without a line of error; else what was wrong.
    """
    child = os.fork()
    if child == 0:
        _run_child(command, log)
    started = time.monotonic()
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() - started > SECONDS:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return f"took more than {SECONDS} s"
        time.sleep(0.01)
    text = log.read_text(errors="replace")
    if os.WIFSIGNALED(status):
        return f"ended by signal {os.WTERMSIG(status)}"
    unexpected = UNEXPECTED.search(text)
    if unexpected:
        return text[max(unexpected.start() - 100, 0) :][-1500:]
    return "" if os.WEXITSTATUS(status) in (0, 1, 2) else f"exit status {os.WEXITSTATUS(status)}: {text[-500:]}"


def _run_child(command: Callable[[], Any], log: Path) -> None:
    file = os.open(log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    status = 0
    try:
        status = command() or 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
        if isinstance(stop.code, str):
            print(stop.code)
    except BaseException:
        traceback.print_exc()
        status = 3
    sys.stdout.flush()
    os._exit(status)
