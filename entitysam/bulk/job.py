"""A job: from inputs to a complete output, continued where an earlier run stopped."""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from entitysam import __version__
from entitysam.bulk.engines import ATTEMPTS_FOLDER, Event, Frames
from entitysam.bulk.inputs import list_clips
from entitysam.bulk.journal import Journal, read_journal
from entitysam.bulk.manifest import Manifest, identity_of, is_member, key_of, keys_of
from entitysam.bulk.report import write_report
from entitysam.bulk.settings import DONE, Clip, Outcome, Settings
from entitysam.bulk.tables import ENTITIES, FOLDERS, PREVIEWS, VIDEO_SCHEMA, VIDEOS, read_description, video_file
from entitysam.errors import ConfigError
from entitysam.io.files import OutputError, check_folder, make_folder, output_errors, whole_file
from entitysam.io.json_files import load_json
from entitysam.io.record_store import file_stem, first_difference
from entitysam.io.result_folder import ELSEWHERE, lock_folder

DESCRIPTION, HIDDEN = "job.json", ".job"
MANIFEST, JOURNAL, TEMPORARY = "manifest.parquet", "journal.jsonl", "temporary"
TEMPORARY_PREFIX = "entitysam_bulk_"
BATCH = 10_000


@dataclass
class Job:
    """What is to be done.

    Attributes:
        inputs: see `inputs.list_clips`.
        out: folder of the output.
        settings: of the workers.
        engine: "local" or "ray".
        workers: of the engine; None = as many as fit (see the engines).
        address: of a Ray cluster; None = this machine.
        resume: continue the job that is in `out`; its finished and failed videos are skipped.
        retry_failed: continue it, its failed videos included.
    """

    inputs: Sequence[str]
    out: Path
    settings: Settings = field(default_factory=Settings)
    engine: str = "local"
    workers: int | None = None
    address: str | None = None
    resume: bool = False
    retry_failed: bool = False


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        total: videos of the job.
        skipped: videos that earlier runs have finished, or that have failed in them.
        done, failed: videos of this run.
        frames: that this run has segmented.
        seconds: since it started.
        all_failed: failed videos, those of earlier runs included.
        duplicates: rows of the inputs that were left out because they name a video twice.
        left_out: finished videos of earlier runs that the inputs of this one do not name.
        failures: some of the failed videos, those of earlier runs included; complete at the end.
    """

    total: int
    skipped: int = 0
    done: int = 0
    failed: int = 0
    frames: int = 0
    seconds: float = 0.0
    all_failed: int = 0
    duplicates: int = 0
    left_out: int = 0
    failures: list[Outcome] = field(default_factory=list)

    @property
    def frames_per_second(self) -> float:
        return self.frames / self.seconds if self.seconds else 0.0

    @property
    def seconds_left(self) -> float | None:
        """None before the first video is finished."""
        finished = self.done + self.failed
        return self.seconds / finished * (self.total - self.skipped - finished) if finished else None


def run_job(job: Job, on_progress: Callable[[Progress], None] = lambda progress: None) -> Progress:
    """Runs a job until every video is finished or has failed.

    Args:
        job: what is to be done.
        on_progress: called after every event, and about once a second. What it raises stops the job, which `resume`
            continues.

    Raises:
        InputError: see `list_clips`.
        ConfigError: the job in the output had other settings or weights, or other videos of the same names.
        OutputError: the output cannot be written to, is that of something else, or another run writes there.
        JobError: no worker can go on, e.g. because the weights cannot be read or the disk is full.
    """
    with ExitStack() as stack:
        stack.enter_context(_claimed(job))
        hidden = make_folder(job.out / HIDDEN)
        manifest = Manifest.write(hidden / MANIFEST, list_clips(job.inputs))
        for name in (ENTITIES, PREVIEWS, *([FOLDERS] if job.settings.masks or job.settings.overlays else [])):
            make_folder(job.out / name)
        _remove_leftovers(job.out)
        journal = stack.enter_context(Journal(hidden / JOURNAL))
        finished, failed, left_out = _earlier(job.out, manifest, journal)
        skipped = finished if job.retry_failed else np.sort(np.concatenate([finished, failed]))
        progress = Progress(len(manifest), len(skipped), duplicates=manifest.duplicates, left_out=left_out)
        temporary = stack.enter_context(_temporary_folder(hidden / TEMPORARY))
        started = time.monotonic()
        if len(skipped) < len(manifest):
            clips = manifest.clips(skipped)
            with closing(_start_engine(job, clips, len(manifest) - len(skipped), temporary)) as events:
                for event in events:
                    progress.seconds = time.monotonic() - started
                    if isinstance(event, Frames):
                        progress.frames += event.count
                    else:
                        journal.add(event)
                        progress.done += event.status == DONE
                        progress.failed += event.status != DONE
                    on_progress(progress)
        progress.seconds = time.monotonic() - started
        keys = np.sort(manifest.keys)
        progress.all_failed = write_videos(job.out, keys)
        run = {"engine": job.engine, "frames": progress.frames, "seconds": round(progress.seconds, 3),
               "frames_per_second": round(progress.frames_per_second, 3)}  # fmt: skip
        progress.failures = write_report(job.out, read_journal(hidden / JOURNAL, keys), run).failures
        return progress


def _start_engine(job: Job, clips: Iterator[Clip], count: int, temporary: Path) -> Generator[Event, None, None]:
    if job.engine == "ray":
        from entitysam.bulk.engines.ray import run_ray

        workers = None if job.workers is None else min(job.workers, count)
        return run_ray(job.settings, job.out, clips, workers, job.address)
    from entitysam.bulk.engines.local import default_workers, run_local

    workers = min(job.workers or default_workers(job.settings), count)
    return run_local(job.settings, job.out, clips, workers, temporary)


@contextmanager
def _claimed(job: Job) -> Iterator[None]:
    """Holds the output while the block runs. An output that is created here is removed again if nothing was finished."""
    out = job.out
    check_folder(out)
    continues = job.resume or job.retry_failed
    fingerprint = json.loads(json.dumps({"version": __version__, **job.settings.fingerprint()}, default=str))
    path = out / DESCRIPTION
    if path.is_file():
        if not continues:
            raise OutputError(f"{out}: holds a job; --resume continues it, or {ELSEWHERE}")
        before = load_json(path)
        difference = first_difference(before if isinstance(before, dict) else {}, fingerprint)
        if difference:
            raise ConfigError(f"{out}: cannot resume, the job there was another one ({difference}); {ELSEWHERE}")
    elif out.is_dir() and any(child.name != HIDDEN for child in out.iterdir()):
        raise OutputError(f"{out}: is not empty and no output of 'entitysam bulk'; {ELSEWHERE}")
    created, described = not out.exists(), path.is_file()
    make_folder(out)
    try:
        with lock_folder(out):
            if not described:
                with whole_file(path) as temporary:
                    temporary.write_text(json.dumps(fingerprint, indent=1), encoding="utf-8")
            yield
    except BaseException:
        if not described and not _has_results(out):
            _remove_empty(out, created)
        raise


def _has_results(out: Path) -> bool:
    journal = out / HIDDEN / JOURNAL
    entities = out / ENTITIES
    return (journal.is_file() and journal.stat().st_size > 0) or (entities.is_dir() and any(entities.iterdir()))


def _remove_empty(out: Path, created: bool) -> None:
    """Removes what a job without any result has made."""
    shutil.rmtree(out / HIDDEN, ignore_errors=True)
    (out / DESCRIPTION).unlink(missing_ok=True)
    for folder in [out / ENTITIES, out / PREVIEWS, out / FOLDERS, *([out] if created else [])]:
        try:
            folder.rmdir()
        except OSError:  # missing, or not empty
            continue


def _remove_leftovers(out: Path) -> None:
    """Removes the temporary files of workers that were killed."""
    for folder in (out / ENTITIES, out / PREVIEWS):
        with os.scandir(folder) as entries:
            leftovers = [entry.path for entry in entries if entry.name.startswith(".") and entry.name.endswith(".part")]
        for path in leftovers:
            Path(path).unlink(missing_ok=True)
    shutil.rmtree(out / HIDDEN / ATTEMPTS_FOLDER, ignore_errors=True)


@contextmanager
def _temporary_folder(record: Path) -> Iterator[Path]:
    """A folder in the system's temporary folder; that of a driver that was killed is removed before."""
    if record.is_file():
        earlier = Path(record.read_text(encoding="utf-8").strip())
        if earlier.parent == Path(tempfile.gettempdir()) and earlier.name.startswith(TEMPORARY_PREFIX):
            shutil.rmtree(earlier, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX))
    try:
        with output_errors(record):
            record.write_text(str(folder), encoding="utf-8")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        record.unlink(missing_ok=True)


def _earlier(out: Path, manifest: Manifest, journal: Journal) -> tuple[np.ndarray, np.ndarray, int]:
    """What earlier runs have left: ascending keys of the videos of the manifest that they have finished, and of those that
    have failed in them; number of finished videos that are not in the manifest.

    Files that are complete, but not in the journal because the driver was killed, are added to it.

    Raises:
        ConfigError: the manifest has another video under the name of an earlier one.
    """
    with os.scandir(out / ENTITIES) as entries:
        stems = [entry.name.removesuffix(".parquet") for entry in entries if entry.name.endswith(".parquet")]
    keys = keys_of(stems)
    done: list[int] = []
    failed: list[int] = []
    identities: list[int] = []
    for outcome in read_journal(journal.path):
        (done if outcome.status == DONE else failed).append(key_of(file_stem(outcome.id)))
        identities.append(identity_of(outcome))
    journaled = np.sort(np.array(done, np.uint64))
    for place in np.flatnonzero(~is_member(keys, journaled)).tolist():
        found = _described_outcome(out / ENTITIES / f"{stems[place]}.parquet")
        if found is not None:
            journal.add(found)
            done.append(int(keys[place]))
            identities.append(identity_of(found))
    known = np.sort(np.array(done + failed, np.uint64))
    changed = is_member(manifest.keys, known) & ~is_member(
        manifest.identities, np.sort(np.array(identities, np.uint64))
    )
    if changed.any():
        clip = next(manifest.find(np.sort(manifest.keys[changed])))
        raise ConfigError(f"{out}: cannot resume, '{clip.id}' was another video there than {clip.path}; {ELSEWHERE}")
    finished = np.intersect1d(np.array(done, np.uint64), keys)
    lost = np.setdiff1d(np.array(failed, np.uint64), finished)
    ours = np.sort(manifest.keys)
    ours_finished = finished[is_member(finished, ours)]
    return ours_finished, lost[is_member(lost, ours)], len(finished) - len(ours_finished)


def _described_outcome(path: Path) -> Outcome | None:
    described = read_description(path)
    values = {name: described[name] for name in Outcome.names() if name in described}
    values["frames"] = len(described.get("frames", []))
    try:
        outcome = Outcome(**values)
    except TypeError:
        return None
    return outcome if isinstance(outcome.id, str) and video_file(path.parents[1], outcome.id) == path else None


def write_videos(out: Path, keys: np.ndarray) -> int:
    """Writes `videos.parquet` from the journal.

    Args:
        out: of the job.
        keys: ascending keys of its videos.

    Returns:
        the number of failed videos.
    """
    failed = 0
    with whole_file(out / VIDEOS) as temporary, pq.ParquetWriter(temporary, VIDEO_SCHEMA, compression="zstd") as writer:
        batch: list[Outcome] = []
        for outcome in read_journal(out / HIDDEN / JOURNAL, keys):
            failed += outcome.status != DONE
            batch.append(outcome)
            if len(batch) == BATCH:
                writer.write_table(_table(batch))
                batch = []
        writer.write_table(_table(batch))
    return failed


def _table(outcomes: Sequence[Outcome]) -> pa.Table:
    columns: dict[str, Any] = {name: [getattr(outcome, name) for outcome in outcomes] for name in VIDEO_SCHEMA.names}
    return pa.table(columns, schema=VIDEO_SCHEMA)
