"""What takes longer than a request: segmenting, exports, reviews. One job of a kind runs at a time, the others wait.

A job is a function that is called in a thread with the job itself; it counts its steps, asks whether it was cancelled, and returns
what it made.
"""

import secrets
import threading
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from entitysam.io.files import OutputError
from entitysam.serve.workspace import NotFoundError, Workspace

WAITING, RUNNING, DONE, CANCELLED, FAILED = "waiting", "running", "done", "cancelled", "failed"
MAX_WAITING = 8  # jobs of one tab
KEPT = 200  # finished jobs that are remembered


class BusyError(RuntimeError):
    """Too many jobs wait already."""


@dataclass
class Job:
    """One piece of work.

    Attributes:
        kind: "segment", "export", "review", "follow", "correct"; jobs of one kind wait for each other.
        owner: the tab that started it; None = the server, for every tab.
        title: shown to the user.
        result: key of the result that it is about, or that it made.
        file: what it wrote, to be downloaded.
        done, total: steps; total is 0 where it is not known.
        message: what went wrong, or what the user should know.
    """

    kind: str
    owner: str | None
    title: str
    work: Callable[["Job"], None]
    key: str = field(default_factory=lambda: secrets.token_hex(8))
    state: str = WAITING
    result: str = ""
    file: Path | None = None
    ticket: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    done: int = 0
    total: int = 0
    message: str = ""
    cancelled: threading.Event = field(default_factory=threading.Event)

    def step(self, *_: object) -> None:
        """Counts a step; stops the work where the job was cancelled.

        Raises:
            StoppedError: it was.
        """
        self.done += 1
        if self.cancelled.is_set():
            raise StoppedError

    def describe(self) -> dict[str, Any]:
        ready = self.state == DONE and self.file is not None
        return {"key": self.key, "kind": self.kind, "title": self.title, "state": self.state, "result": self.result,
                "done": self.done, "total": self.total, "message": self.message,
                "stopping": self.cancelled.is_set(),
                "download": f"/download/{self.ticket}" if ready else ""}  # fmt: skip


class StoppedError(Exception):
    """The work was cancelled."""


class JobQueue:
    """Runs jobs, one thread per kind. For several threads.

    Args:
        workspace: is told when a job changes its state.
    """

    def __init__(self, workspace: Workspace):
        self.workspace = workspace
        self._jobs: dict[str, Job] = {}
        self._waiting: dict[str, deque[Job]] = {}
        self._lock = threading.RLock()

    def add(self, job: Job) -> Job:
        """Starts a job, or lets it wait.

        Raises:
            BusyError: the tab has too many waiting jobs.
        """
        with self._lock:
            mine = [one for one in self._jobs.values() if one.owner == job.owner and one.state in (WAITING, RUNNING)]
            if len(mine) >= MAX_WAITING:
                raise BusyError(f"{MAX_WAITING} jobs are waiting already")
            self._forget_old()
            self._jobs[job.key] = job
            if job.kind in self._waiting:
                self._waiting[job.kind].append(job)
            else:
                self._waiting[job.kind] = deque([job])
                threading.Thread(target=self._run, args=(job.kind,), daemon=True).start()
        self.workspace.announce()
        return job

    def _forget_old(self) -> None:
        finished = [key for key, job in self._jobs.items() if job.state not in (WAITING, RUNNING)]
        for key in finished[: max(0, len(finished) - KEPT)]:
            del self._jobs[key]

    def _run(self, kind: str) -> None:
        while True:
            with self._lock:
                if not self._waiting[kind]:
                    del self._waiting[kind]
                    return
                job = self._waiting[kind].popleft()
            self._do(job)
            self.workspace.announce()

    def _do(self, job: Job) -> None:
        if job.cancelled.is_set():
            job.state = CANCELLED
            return
        job.state = RUNNING
        self.workspace.announce()
        try:
            job.work(job)
            job.state = DONE
        except StoppedError:
            job.state = CANCELLED
        except Exception as error:
            job.message = " ".join(str(error).split()) or type(error).__name__
            job.state = CANCELLED if job.cancelled.is_set() else FAILED
            if not isinstance(error, ValueError | OutputError | LookupError):
                traceback.print_exc()

    def job(self, key: str, tab: str) -> Job:
        """
        Raises:
            NotFoundError: there is none, or it is another tab's.
        """
        with self._lock:
            job = self._jobs.get(key)
        if job is None or job.owner not in (None, tab):
            raise NotFoundError("there is no such job")
        return job

    def cancel(self, key: str, tab: str) -> Job:
        job = self.job(key, tab)
        job.cancelled.set()
        self.workspace.announce()
        return job

    def of(self, tab: str) -> list[Job]:
        with self._lock:
            return [job for job in self._jobs.values() if job.owner in (None, tab)]

    def ticket(self, ticket: str) -> Path:
        """The file of a download.

        Raises:
            NotFoundError: there is none.
        """
        with self._lock:
            jobs = list(self._jobs.values())
        for job in jobs:
            same = secrets.compare_digest(job.ticket.encode(), ticket.encode(errors="replace"))
            if same and job.file is not None and job.state == DONE:
                return job.file
        raise NotFoundError("there is no such file")

    def close(self) -> None:
        """Cancels everything."""
        with self._lock:
            jobs = list(self._jobs.values())
        for job in jobs:
            job.cancelled.set()
