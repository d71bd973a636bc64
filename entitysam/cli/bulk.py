"""Segments a whole collection of videos into one Parquet data set, on the cores or GPUs of this machine or on Ray.

INPUT is any number of videos, folders of videos (and of folders of images), quoted globs, text lists (.txt), manifests
(.csv or .parquet with a column path, optionally start and end in seconds and id), and addresses (s3://, gs://, https://, ...).

written to the output:
  entities/<video>.parquet  one row per entity and frame: score, box, area, run-length mask
  videos.parquet            one row per video: status, frames, entities, seconds, error
  previews/<video>.jpg      a frame and its entities
  report.html, report.json  throughput, slowest videos, entities per video, failures
  videos/<video>/           with --masks or --overlays: the result folder of 'entitysam segment'

In Python: entitysam.open_results("out"). A video that cannot be segmented is a row with its error, and the exit code is 3. A
killed job costs the videos in hand; --resume continues it. Results do not depend on engine or number of workers.

examples:
  entitysam bulk videos/ -o out
  entitysam bulk videos/ -o out --resume --retry-failed
  entitysam bulk 'videos/**/*.mp4' more.txt -o out --workers 8 --window 100
  entitysam bulk manifest.parquet -o out --model vit-s --device cuda --dtype bf16
  entitysam bulk s3://bucket/videos/ -o out --engine ray --address auto
"""

import argparse
from typing import TYPE_CHECKING

from entitysam.cli.shared.arguments import add_model_arguments, add_output_arguments

if TYPE_CHECKING:
    from entitysam.bulk.job import Progress

SHOWN = 5  # failed videos on the terminal
FAILED = 3  # exit code of a job that is complete, but for failed videos


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs", metavar="INPUT", nargs="+", help="videos, folders, 'globs', lists, manifests, addresses"
    )
    add_output_arguments(parser, "out/bulk")
    job = parser.add_argument_group("job")
    job.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="processes here, or Ray (default: local)"
    )
    job.add_argument("--workers", type=positive, metavar="N",
                     help="processes, each with its own network (default: one per GPU, or per --threads cores)")  # fmt: skip
    job.add_argument("--threads", type=positive, default=1, metavar="N",
                     help="CPU threads of a worker (default: 1, which uses the cores best)")  # fmt: skip
    job.add_argument("--address", metavar="A", help="of a Ray cluster, e.g. auto (default: a Ray of its own, here)")
    job.add_argument(
        "--resume", action="store_true", help="continue the job in the output, without its finished videos"
    )
    job.add_argument("--retry-failed", action="store_true", help="continue it, and try its failed videos again")
    job.add_argument("--masks", action="store_true", help="also write result folders with id maps and JSON files")
    job.add_argument("--overlays", action="store_true", help="also write complete result folders with overlay videos")
    frames = parser.add_argument_group("frames")
    frames.add_argument("--stride", type=positive, default=1, metavar="N", help="take every N-th frame (default: 1)")
    frames.add_argument("--max-frames", type=positive, metavar="N", help="at most N frames of each video")
    method = parser.add_argument_group("method")
    method.add_argument("--window", type=positive, metavar="N",
                        help="long videos: segment windows of N frames, which overlap by 8, one after the other")  # fmt: skip
    method.add_argument("--warmup-frames", type=int, metavar="N",
                        help="extra passes over the first frame (default: 3, as published)")  # fmt: skip
    method.add_argument("--threshold", type=float, metavar="P", help="lowest score of an entity, 0..1 (default: 0.05)")
    add_model_arguments(parser)
    parser.set_defaults(takes_overrides=True)


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of at least 1")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    from entitysam.cli.shared.models import check_model_options
    from entitysam.cli.shared.settings import read_settings
    from entitysam.errors import ConfigError

    if arguments.window == 1:
        raise ConfigError("--window needs at least 2 frames, not 1")
    if arguments.address and arguments.engine != "ray":
        raise ConfigError("--address is for --engine ray")
    check_model_options(arguments)
    overrides, inference = read_settings(arguments)
    _check_packages(arguments.engine)

    from entitysam.bulk.job import Job, run_job
    from entitysam.bulk.settings import Settings
    from entitysam.bulk.worker import JobError
    from entitysam.cli.shared.progress import job_line, note, warn
    from entitysam.cli.shared.stopping import StopRequest

    settings = Settings(
        model=arguments.model,
        weights=arguments.weights,
        device=arguments.device,
        overrides=overrides,
        inference=inference,
        window=arguments.window,
        stride=arguments.stride,
        max_frames=arguments.max_frames,
        threads=arguments.threads,
        masks=arguments.masks,
        overlays=arguments.overlays,
    )
    job = Job(
        arguments.inputs,
        arguments.out,
        settings,
        engine=arguments.engine,
        workers=arguments.workers,
        address=arguments.address,
        resume=arguments.resume,
        retry_failed=arguments.retry_failed,
    )
    try:
        with job_line(arguments.quiet) as show, StopRequest() as stop:

            def on_progress(progress: "Progress") -> None:
                show(progress)
                stop.check()

            progress = run_job(job, on_progress)
    except (JobError, KeyboardInterrupt) as error:
        if job.out.exists():  # nothing is left of a job without any result
            note(f"{job.out}: unfinished; the same command with --resume continues")
        if isinstance(error, JobError):
            raise OSError(str(error)) from error
        raise
    if progress.duplicates:
        warn(f"{progress.duplicates} inputs name a video twice and are left out")
    if progress.left_out:
        warn(f"{progress.left_out} finished videos of earlier runs are not in these inputs, and no longer in videos.parquet; "
             "the same command with all inputs brings them back")  # fmt: skip
    for line in _failures(progress, job.out):
        note(line)
    print(_summary(progress, job.out))
    return FAILED if progress.all_failed else 0


def _check_packages(engine: str) -> None:
    """Raises ConfigError where an extra is not installed."""
    from importlib.util import find_spec

    from entitysam.errors import ConfigError

    if find_spec("pyarrow") is None:
        raise ConfigError("'entitysam bulk' needs pyarrow: pip install 'entitysam[bulk]'")
    if engine == "ray" and find_spec("ray") is None:
        raise ConfigError("--engine ray needs Ray: pip install 'entitysam[ray]'")


def _failures(progress: "Progress", out: object) -> list[str]:
    """The first failed videos with their errors, and where the others are."""
    lines = [f"failed: {' '.join(outcome.id.split())}: {outcome.error}" for outcome in progress.failures[:SHOWN]]
    if lines:
        more = progress.all_failed - len(lines)
        lines.append(f"{f'{more} more failed: ' if more else ''}{out}/report.html; --retry-failed tries again")
    return lines


def _summary(progress: "Progress", out: object) -> str:
    parts = [f"{progress.done} of {progress.total} videos"]
    if progress.skipped:
        parts.append(f"{progress.skipped} skipped")
    if progress.all_failed:
        parts.append(f"{progress.all_failed} failed")
    speed = f"{progress.frames} frames in {progress.seconds:.1f} s ({progress.frames_per_second:.2f} frames/s)"
    return f"{', '.join(parts)}, {speed}: {out}"
