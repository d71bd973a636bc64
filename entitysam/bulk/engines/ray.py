"""Ray Data: one actor per GPU, or per `threads` CPUs, each with the network loaded once; on this machine or on a cluster.

The videos go through Ray in blocks of one row, so that a video is what Ray repeats when a process or a machine is lost.
All machines need entitysam, the weights, the videos, and the output under the same path.
"""

import logging
import os
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from entitysam.bulk.engines import ATTEMPTS, ATTEMPTS_FOLDER, Event, Frames
from entitysam.bulk.settings import DONE, Clip, Outcome, Settings
from entitysam.bulk.tables import read_description, video_file
from entitysam.bulk.worker import ENVIRONMENT, JobError, VideoWorker, one_line
from entitysam.io.files import OutputError, output_errors

ROWS = 2_000  # of the list of videos in one object of Ray
STARTS = 3  # tries to start Ray on this machine
FATAL = "job"  # status of an outcome that ends the job
COLUMNS = pa.schema([("id", pa.string()), ("path", pa.string()), ("start", pa.float64()), ("end", pa.float64())])


def run_ray(
    settings: Settings, out: Path, clips: Iterator[Clip], workers: int | None, address: str | None = None
) -> Generator[Event, None, None]:
    """Runs a job on Ray.

    Args:
        settings: of the job.
        out: its output, a folder that all machines see.
        clips: the videos.
        workers: number of actors; None = as many as the GPUs, or the CPUs by `threads`, of the cluster.
        address: of a cluster; None starts Ray here, and ends it.

    Raises:
        JobError: no worker can go on, whatever the video; no Ray at the address.
    """
    import ray

    started = not ray.is_initialized()
    try:
        if started:
            _start(ray, address, settings, workers)
        yield from _run(ray, settings, out.resolve(), clips, workers)
    except ray.exceptions.RayError as error:
        raise JobError(f"Ray: {one_line(error)[:300]}") from error
    finally:
        if started:
            ray.shutdown()


def _start(ray: Any, address: str | None, settings: Settings, workers: int | None) -> None:
    options: dict[str, Any] = {"address": address} if address else {"include_dashboard": False}
    if not address and workers:  # as many as asked for, also on fewer cores
        options["num_cpus"] = max(os.cpu_count() or 1, workers * settings.threads) + 1
    # Ray would copy the folder of the driver to the workers; the environment is that of the machine.
    variables = {"PYTHONPATH": os.environ.get("PYTHONPATH", ""), **dict.fromkeys(ENVIRONMENT, str(settings.threads))}
    for attempt in range(STARTS):
        try:
            ray.init(log_to_driver=False, logging_level="ERROR", runtime_env={"env_vars": variables}, **options)
            return
        except Exception as error:  # Ray has no class for it; on a busy machine its own limit of 30 s is too short
            ray.shutdown()
            if address or attempt == STARTS - 1:
                where = f"cannot be reached at {address}" if address else "cannot be started here"
                raise JobError(f"Ray {where}: {one_line(error)[:300]}") from error


def _run(
    ray: Any, settings: Settings, out: Path, clips: Iterator[Clip], workers: int | None
) -> Generator[Event, None, None]:
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = 0
    gpus = int(ray.cluster_resources().get("GPU", 0)) if settings.device in ("auto", "cuda") else 0
    count = workers or gpus or max(1, int(ray.cluster_resources().get("CPU", 1)) // settings.threads)
    resources = {"num_gpus": 1, "num_cpus": settings.threads} if gpus else {"num_cpus": settings.threads}
    if settings.device == "auto":
        settings = replace(settings, device="cuda" if gpus else "cpu")  # an actor sees its own GPU alone
    videos = ray.data.from_arrow(list(_tables(clips))).repartition(target_num_rows_per_block=1)
    outcomes = videos.map_batches(
        RayWorker,
        fn_constructor_kwargs={"settings": settings, "out": str(out)},
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(
            size=count
        ),  # Ray Data restarts actors and repeats their blocks without limit
        **resources,
    )
    for row in outcomes.iter_rows():
        if row["status"] == FATAL:
            raise JobError(row["error"])
        outcome = Outcome(
            **{**row, "start": _plain(row["start"]), "end": _plain(row["end"]), "fps": _plain(row["fps"])}
        )
        yield Frames(outcome.frames)
        yield outcome


def _plain(value: Any) -> float | None:
    """None instead of NaN, which pandas and numpy put there."""
    return None if value is None or value != value else float(value)


def _tables(clips: Iterator[Clip]) -> Iterator[pa.Table]:
    """The videos in tables of `ROWS`, for Ray's object store."""
    while batch := list(islice(clips, ROWS)):
        columns: dict[str, Any] = {name: [getattr(clip, name) for clip in batch] for name in COLUMNS.names}
        yield pa.table(columns, schema=COLUMNS)


class RayWorker:
    """An actor of Ray Data: a batch of one row is a video."""

    def __init__(self, settings: Settings, out: str) -> None:
        self._settings, self._out = settings, Path(out)
        self._worker: VideoWorker | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        clip = Clip(str(batch["id"][0]), str(batch["path"][0]), _plain(batch["start"][0]), _plain(batch["end"][0]))
        return {name: [value] for name, value in asdict(self._outcome(clip)).items()}

    def _outcome(self, clip: Clip) -> Outcome:
        earlier = self._finished(clip)
        if earlier is not None:  # Ray repeats a video whose answer was lost
            return earlier
        mark = self._out / ".job" / ATTEMPTS_FOLDER / video_file(self._out, clip.id).stem
        try:
            if _count_attempt(mark) > ATTEMPTS:
                return Outcome.of(clip, error=f"its worker ended without a word, {ATTEMPTS} times")
            if self._worker is None:  # here, and not in __init__: a missing weight file is the end of the job
                self._worker = VideoWorker(self._settings, self._out)
            outcome = self._worker.run(clip)
        except (JobError, OutputError) as error:
            return Outcome.of(clip, status=FATAL, error=one_line(error))
        except Exception as error:
            outcome = Outcome.of(clip, error=f"{type(error).__name__}: {one_line(error)}")
            self._worker = None
        with suppress(OSError):
            mark.unlink()
        return outcome

    def _finished(self, clip: Clip) -> Outcome | None:
        described = read_description(video_file(self._out, clip.id))
        if described.get("status") != DONE:
            return None
        values = {name: described[name] for name in Outcome.names() if name in described}
        return Outcome(**{**values, "frames": len(described["frames"])})


def _count_attempt(mark: Path) -> int:
    """Counts the processes that have begun a video, in a file that outlives them."""
    with output_errors(mark):
        mark.parent.mkdir(parents=True, exist_ok=True)
        with mark.open("ab") as file:
            file.write(b".")
            return file.tell()
