"""The workers of a training or evaluation. In a single process every function is a no-op, so that callers need no case."""

import datetime
import itertools
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException


def is_running() -> bool:
    """True inside a process group."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Index of this process among all, 0 on a single process."""
    return dist.get_rank() if is_running() else 0


def world_size() -> int:
    """Number of processes, 1 on a single process."""
    return dist.get_world_size() if is_running() else 1


def mean(value: Tensor) -> Tensor:
    """Average of a float tensor over the workers; a collective call."""
    if world_size() == 1:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / world_size()


def mean_dict(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Averages of named scalars over the workers, in one collective call."""
    if not values:
        return {}
    stacked = mean(torch.stack([value.detach().float() for value in values.values()]))
    return dict(zip(values, stacked.tolist(), strict=True))


def any_worker(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set on at least one worker, so that all workers leave a loop in the same iteration."""
    if world_size() == 1:
        return flag
    message = torch.tensor(float(flag), device=device)
    dist.all_reduce(message, op=dist.ReduceOp.MAX)
    return bool(message.item())


def gather(value: Any) -> list[Any]:
    """The picklable values of all workers in rank order, on every worker; a collective call."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def barrier() -> None:
    if world_size() > 1:
        dist.barrier()


class WorkerError(RuntimeError):
    """A worker process failed; the message is its last line."""


class SharedWork:
    """Work of unequal length that the workers share, e.g. the videos of an evaluation.

    A worker that finishes early polls the group's key-value store instead of waiting in a collective, whose timeout a
    long share of another worker would exceed; and it learns there that another worker failed. On a single process
    every method does nothing. All workers create it in the same order.
    """

    _started = itertools.count()

    def __init__(self) -> None:
        self._store = dist.distributed_c10d._get_default_store() if world_size() > 1 else None
        self._key = f"entitysam/shared_work/{next(SharedWork._started)}"

    def fail(self, reason: str) -> None:
        """Tells the other workers that the work cannot be completed."""
        with suppress(RuntimeError):  # the first worker, which holds the store, may be gone
            if self._store is not None and not self._failed():
                self._store.set(f"{self._key}/failure", f"worker {rank()}: {reason}")

    def check(self) -> None:
        """Raises where another worker failed.

        Raises:
            WorkerError: with the other worker's reason.
        """
        if self._store is None:
            return
        with self._connected():
            reason = self._store.get(f"{self._key}/failure").decode() if self._failed() else ""
        if reason:
            raise WorkerError(reason)

    def wait(self) -> None:
        """Returns when all workers have finished their share, however long that takes.

        Raises:
            WorkerError: another worker failed.
        """
        if self._store is None:
            return
        pause = 0.01
        with self._connected():
            finished = self._store.add(f"{self._key}/finished", 1)
        while finished < world_size():
            self.check()
            time.sleep(pause)
            pause = min(2 * pause, 1.0)
            with self._connected():
                finished = self._store.add(f"{self._key}/finished", 0)
        dist.barrier()  # the first worker holds the store and may not leave before the others have read it

    @contextmanager
    def _connected(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise WorkerError(f"the connection to the other workers is lost ({error})") from error

    def _failed(self) -> bool:
        return self._store is not None and self._store.check([f"{self._key}/failure"])


@contextmanager
def process_group(device: torch.device | str, init_method: str = "env://") -> Iterator[torch.device]:
    """Joins the group that the environment variables RANK, WORLD_SIZE and LOCAL_RANK describe (torchrun's names).

    A process without them, or alone, runs without a group. NCCL on CUDA, gloo elsewhere.

    Yields:
        The torch.device of this worker.
    """
    size, local_rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    on_cuda = torch.device(device).type == "cuda"
    own = torch.device("cuda", local_rank) if on_cuda else torch.device(device)
    if on_cuda:
        torch.cuda.set_device(own)
    if size == 1:
        yield own
        return
    backend = "nccl" if on_cuda else "gloo"
    dist.init_process_group(backend, init_method, timeout=datetime.timedelta(minutes=30))
    try:
        yield own
    finally:
        dist.destroy_process_group()


def launch(worker: Callable[..., None], num_workers: int, arguments: tuple[Any, ...]) -> None:
    """Runs `worker(*arguments)` in `num_workers` processes of this machine, each with torchrun's variables set.

    With one worker, or already under torchrun, it runs in this process. SIGTERM is passed on to the workers.

    Raises:
        WorkerError: a worker raised; the others are ended.
        SystemExit: a worker left with a code of its own.
    """
    if num_workers <= 1 or "WORLD_SIZE" in os.environ:
        worker(*arguments)
        return
    context = torch.multiprocessing.start_processes(
        _spawned, (worker, num_workers, _free_port(), arguments), nprocs=num_workers, join=False, start_method="spawn"
    )
    previous = signal.signal(signal.SIGTERM, lambda *_: [process.terminate() for process in context.processes])
    try:
        while not context.join():
            pass
    except ProcessRaisedException as error:
        raise WorkerError(str(error).strip().splitlines()[-1]) from error
    except ProcessExitedException as error:
        for process in context.processes:
            process.join()
        # As a shell reports it: 128 + the signal that ended a worker before it could answer.
        raise SystemExit(error.exit_code if error.exit_code >= 0 else 128 - error.exit_code) from error
    finally:
        signal.signal(signal.SIGTERM, previous)


def _spawned(local_rank: int, worker: Callable[..., None], size: int, port: int, arguments: tuple[Any, ...]) -> None:
    os.environ.update(
        RANK=str(local_rank),
        LOCAL_RANK=str(local_rank),
        WORLD_SIZE=str(size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    worker(*arguments)


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]
