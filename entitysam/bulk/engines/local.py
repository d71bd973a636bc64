"""Processes of this machine, one network each."""

import os
import signal
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
from typing import Any

from entitysam.bulk.engines import ATTEMPTS, Event, Frames
from entitysam.bulk.settings import Clip, Outcome, Settings
from entitysam.bulk.worker import JobError, VideoWorker, one_line, set_threads

PATIENCE = 5.0  # seconds that a worker has to end


def default_workers(settings: Settings) -> int:
    """One per GPU that the device names, otherwise as many as the cores that this process may use have threads for.

    The driver asks no GPU library: it would take hundreds of MB.
    """
    if settings.device.startswith(("cuda:", "mps")):
        return 1
    if settings.device in ("auto", "cuda"):
        if sys.platform == "darwin":
            return 1
        gpus = len([path for path in Path("/dev").glob("nvidia*") if path.name.removeprefix("nvidia").isdecimal()])
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = gpus if visible is None else min(gpus, len([name for name in visible.split(",") if name.strip()]))
        if gpus:
            return gpus
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // settings.threads)


@dataclass
class Seat:
    """A worker process and the video in its hand.

    Attributes:
        process, connection: of the worker.
        clip: the video, None while it waits for one.
        attempts: processes that this video has ended before.
    """

    process: BaseProcess
    connection: Connection
    clip: Clip | None = None
    attempts: int = 0


@dataclass(frozen=True)
class Damaged:
    """The last message of a process that an unexpected error may have damaged."""

    outcome: Outcome


def run_local(
    settings: Settings, out: Path, clips: Iterator[Clip], workers: int, temporary: Path
) -> Generator[Event, None, None]:
    """Runs a job in processes.

    Args:
        settings: of the job.
        out: its output.
        clips: the videos.
        workers: number of processes. On GPUs they take turns over `cuda:0`, `cuda:1`, ...
        temporary: folder for what the workers keep while they run.

    Raises:
        JobError: a worker cannot go on, whatever the video.
    """
    context = get_context("spawn")
    seats: list[Seat] = []
    repeated: list[tuple[Clip, int]] = []  # videos whose worker has ended, and how often
    more = True

    def start(index: int) -> Seat:
        ours, theirs = context.Pipe()
        arguments = (theirs, settings, out, temporary, index)
        process = context.Process(target=_serve, args=arguments, name=f"entitysam-bulk-{index}", daemon=True)
        process.start()
        theirs.close()
        return Seat(process, ours)

    def feed(seat: Seat) -> None:
        nonlocal more
        if repeated:
            seat.clip, seat.attempts = repeated.pop()
        else:
            seat.clip, seat.attempts = next(clips, None), 0
            more = seat.clip is not None
        if seat.clip is not None:
            with suppress(OSError):  # a worker that has ended is noticed by its sentinel
                seat.connection.send(seat.clip)

    try:
        for index in range(workers):
            seats.append(start(index))
            feed(seats[-1])
            if not more:
                break
        while any(seat.clip for seat in seats):
            ready = _ready(seats)
            if not ready:
                yield Frames(0)  # lets the caller look at the clock
            for index in ready:
                seat = seats[index]
                message = _receive(seat.connection)
                if message is None:  # the process has ended
                    outcome = _ended(seat, repeated)
                    seats[index] = seat = start(index)
                    if outcome is not None:
                        yield outcome
                elif isinstance(message, JobError):
                    raise message
                elif isinstance(message, Frames):
                    yield message
                else:
                    seat.clip = None
                    if isinstance(message, Damaged):
                        seat.process.join()
                        seat.connection.close()
                        seats[index] = start(index)
                        message = message.outcome
                    yield message
            for seat in seats:
                if seat.clip is None and (more or repeated):
                    feed(seat)
    finally:
        _end(seats)


def _ready(seats: list[Seat]) -> list[int]:
    """Indices of the seats with a video whose worker has sent a message or has ended; waits up to a second for one."""
    waiting: dict[Any, int] = {seat.connection: index for index, seat in enumerate(seats) if seat.clip}
    waiting |= {seat.process.sentinel: index for index, seat in enumerate(seats) if seat.clip}
    return sorted({waiting[ready] for ready in wait(list(waiting), timeout=1.0)})


def _end(seats: list[Seat]) -> None:
    """Ends all workers; one that does not end in time is killed."""
    for seat in seats:
        seat.connection.close()  # a waiting worker ends by itself
        if seat.clip is not None:
            seat.process.terminate()
    for seat in seats:
        seat.process.join(PATIENCE)
        if seat.process.is_alive():
            seat.process.kill()
            seat.process.join()


def _receive(connection: Connection) -> Any:
    """The next message; None where the process has ended without one."""
    try:
        return connection.recv() if connection.poll() else None
    except (EOFError, OSError):
        return None


def _ended(seat: Seat, repeated: list[tuple[Clip, int]]) -> Outcome | None:
    """Takes the video of a process that has ended back, or gives it up."""
    seat.process.join()
    seat.connection.close()
    if seat.clip is None:
        return None
    if seat.attempts + 1 < ATTEMPTS:
        repeated.append((seat.clip, seat.attempts + 1))
        return None
    code = seat.process.exitcode or 0
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    return Outcome.of(seat.clip, error=f"its worker {how}, {ATTEMPTS} times")


def _serve(connection: Connection, settings: Settings, out: Path, temporary: Path, index: int) -> None:
    """A worker process: takes videos until the connection ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the driver, which ends its workers
    folder = temporary / f"worker-{index}"
    folder.mkdir(exist_ok=True)
    tempfile.tempdir = str(folder)
    Thread(target=_end_with_driver, daemon=True).start()
    set_threads(settings.threads)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the driver has ended
        try:
            worker = VideoWorker(_placed(settings, index), out, lambda count: connection.send(Frames(count)))
            while True:
                clip = connection.recv()
                try:
                    message: Any = worker.run(clip)
                except (JobError, EOFError, BrokenPipeError, ConnectionResetError):
                    raise
                except Exception as error:
                    connection.send(Damaged(Outcome.of(clip, error=f"{type(error).__name__}: {one_line(error)}")))
                    return
                connection.send(message)
        except JobError as error:
            connection.send(error)


def _end_with_driver() -> None:
    """Ends this process when the driver is killed: a resumed job would do the same video beside it."""
    driver = parent_process()
    if driver is not None:
        driver.join()
        os._exit(1)


def _placed(settings: Settings, index: int) -> Settings:
    """The settings with the GPU of a worker."""
    if settings.device not in ("auto", "cuda"):
        return settings
    import torch

    if not torch.cuda.is_available():
        return settings
    return replace(settings, device=f"cuda:{index % torch.cuda.device_count()}")
