"""Run as a program: the driver's part of a job over N videos that nobody segments; prints a line per step as JSON."""

import json
import resource
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from entitysam.bulk.inputs import list_clips
from entitysam.bulk.job import HIDDEN, JOURNAL, MANIFEST, _earlier, write_videos
from entitysam.bulk.journal import Journal, read_journal
from entitysam.bulk.manifest import Manifest
from entitysam.bulk.report import write_report
from entitysam.bulk.settings import DONE, Outcome
from entitysam.bulk.tables import ENTITIES, PREVIEWS
from entitysam.io.record_store import file_stem

BATCH = 10_000


def main(folder: Path, count: int) -> None:
    out, listed = folder / "out", folder / "manifest.parquet"
    for name in (ENTITIES, PREVIEWS, HIDDEN):
        (out / name).mkdir(parents=True)
    with pq.ParquetWriter(listed, pa.schema([("path", pa.string())])) as writer:
        for first in range(0, count, BATCH):
            paths = [f"/videos/part-{n // 1000:05d}/clip-{n:08d}.mp4" for n in range(first, min(first + BATCH, count))]
            writer.write_table(pa.table({"path": paths}))
    manifest = step("manifest", lambda: Manifest.write(out / HIDDEN / MANIFEST, list_clips([str(listed)])))

    def finish() -> None:
        """What the driver writes for each video; 1 of 1000 fails, the other files are empty."""
        with Journal(out / HIDDEN / JOURNAL) as journal:
            for number, clip in enumerate(manifest.clips(np.empty(0, np.uint64))):
                if number % 1000 == 999:
                    journal.add(Outcome.of(clip, error=f"{clip.path}: the file is empty", worker="host:1"))
                    continue
                (out / ENTITIES / f"{file_stem(clip.id)}.parquet").touch()
                file = f"{ENTITIES}/{file_stem(clip.id)}.parquet"
                values = {"frames": 300, "entities": number % 40, "width": 1280, "height": 720, "fps": 30.0}
                journal.add(Outcome.of(clip, status=DONE, file=file, seconds=25.0, worker="host:1", **values))

    step("journal", finish)

    def scan() -> None:
        with Journal(out / HIDDEN / JOURNAL) as journal:
            finished, failed = _earlier(out, manifest, journal)
        assert (len(finished), len(failed)) == (count - count // 1000, count // 1000)

    step("resume scan", scan)
    keys = np.sort(manifest.keys)
    step("videos.parquet", lambda: write_videos(out, keys))
    step("report", lambda: write_report(out, read_journal(out / HIDDEN / JOURNAL, keys), {}))
    shutil.rmtree(out)


def step(name, work):
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    seconds = {"wall_s": round(time.perf_counter() - wall, 1), "cpu_s": round(time.process_time() - cpu, 1)}
    print(json.dumps({"step": name, **seconds, "peak_mib": round(peak_memory())}), flush=True)
    return result


def peak_memory() -> float:
    """MiB of this program so far. On Linux `ru_maxrss` starts with the peak of the program that has started this one."""
    status = Path("/proc/self/status")
    if status.is_file():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
