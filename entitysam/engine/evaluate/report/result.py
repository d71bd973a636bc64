"""The result of an evaluation: a JSON file, a Markdown table with the rows of the papers, a CSV row per video."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import NotRequired, TypedDict

from entitysam.io.files import make_folder, whole_file
from entitysam.io.json_files import check_type, load_json

RESULT, TABLE, PER_VIDEO = "result.json", "result.md", "per_video.csv"
Paper = Mapping[str, Mapping[str, float]]


@dataclass
class VideoResult:
    """One video: number of frames, seconds and peak memory in MiB of its prediction (NaN for saved ones), metrics in percent."""

    frames: int
    seconds: float
    metrics: dict[str, float] = field(default_factory=dict)
    memory: float = math.nan


@dataclass(frozen=True)
class Failure:
    """A video that could not be predicted (`during` = "prediction") or not be measured by the evaluator `during`."""

    video: str
    during: str
    error: str


@dataclass
class EvaluationResult:
    """The result of an evaluation. All metrics are in percent: 100 = perfect; NaN = undefined.

    Attributes:
        title: data set and split.
        metrics: over all videos.
        videos: by video id.
        failures: videos that are missing from the metrics.
        warnings: defects of the input that the published evaluators accept, and their number.
        seconds: duration of the whole run.
        run: weights, settings, ... of the run.
        notes: sentences on what a reader of the metrics must know.
        samples: main metrics over resampled videos, float [n] (see `Evaluator.bootstrap`); not written to files.
    """

    title: str
    metrics: dict[str, float] = field(default_factory=dict)
    videos: dict[str, VideoResult] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    warnings: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    run: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    samples: dict[str, Any] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether the metrics cover every video."""
        return not self.failures

    @property
    def main_metric(self) -> str:
        """The first metric, which orders the videos."""
        return next(iter(self.metrics), "")

    @property
    def frames_per_second(self) -> float:
        """Of the predictions, reading and writing included; NaN for saved ones."""
        seconds = sum(video.seconds for video in self.videos.values())
        return sum(video.frames for video in self.videos.values()) / seconds if seconds > 0 else math.nan

    @property
    def peak_memory(self) -> float:
        """MiB; NaN where it was not measured."""
        return max((video.memory for video in self.videos.values() if not math.isnan(video.memory)), default=math.nan)

    def intervals(self) -> dict[str, list[float]]:
        """95 % confidence intervals over videos [low, high] of the metrics in `samples`; none with less than two videos."""
        if len(self.videos) < 2:
            return {}
        return {name: np.nanpercentile(values, [2.5, 97.5]).tolist() for name, values in self.samples.items()}

    def worst_first(self) -> list[str]:
        """Video ids by ascending main metric; undefined ones last."""

        def key(name: str) -> tuple[bool, float, str]:
            value = self.videos[name].metrics.get(self.main_metric, math.nan)
            return (math.isnan(value), value if not math.isnan(value) else 0.0, name)

        return sorted(self.videos, key=key)


def write_report(result: EvaluationResult, folder: Path, paper: Paper) -> None:
    """Writes `result.json`, `result.md` and `per_video.csv`.

    Args:
        result: of the evaluation.
        folder: created if missing.
        paper: rows of published numbers in percent, shown below ours.

    Raises:
        OutputError: a file cannot be written.
    """
    make_folder(folder)
    texts = {RESULT: to_json(result), TABLE: to_markdown(result, paper), PER_VIDEO: to_csv(result)}
    for name, text in texts.items():
        with whole_file(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def to_json(result: EvaluationResult) -> str:
    """JSON at full precision; undefined metrics are null."""
    values = {**asdict(replace(result, samples={})), "intervals": result.intervals()}
    del values["samples"]
    return json.dumps(_finite(values), indent=1) + "\n"


class VideoRow(TypedDict):
    frames: int
    seconds: float | None
    metrics: dict[str, float | None]
    memory: NotRequired[float | None]


class FailureRow(TypedDict):
    video: str
    during: str
    error: str


class ResultFile(TypedDict):
    """`result.json`."""

    title: str
    metrics: dict[str, float | None]
    videos: dict[str, VideoRow]
    failures: list[FailureRow]
    warnings: dict[str, int]
    seconds: float | None
    run: dict[str, Any]
    notes: NotRequired[list[str]]
    intervals: NotRequired[dict[str, list[float | None]]]


def read_result(path: str | Path) -> EvaluationResult:
    """A result from its JSON file, or from the folder that contains it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is not a result.
    """
    path = Path(path) / RESULT if Path(path).is_dir() else Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such result file")
    values = check_type(load_json(path), ResultFile, f"{path}: not a result of an evaluation")
    videos = {
        name: VideoResult(
            video["frames"], _number(video["seconds"]), _numbers(video["metrics"]), _number(video.get("memory"))
        )
        for name, video in values["videos"].items()
    }
    return EvaluationResult(
        title=values["title"],
        metrics=_numbers(values["metrics"]),
        videos=videos,
        failures=[Failure(**failure) for failure in values["failures"]],
        warnings=values["warnings"],
        seconds=_number(values["seconds"]),
        run=values["run"],
        notes=values.get("notes", []),
    )


def to_markdown(result: EvaluationResult, paper: Paper) -> str:
    """The table with the rows of the papers, then notes, failures and warnings."""
    headline = [name for name in result.metrics if "@" not in name]
    windows = [name for name in result.metrics if "@" in name]
    lines = [f"# {result.title}", ""]
    frames = sum(video.frames for video in result.videos.values())
    about = [f"{len(result.videos)} videos, {frames} frames", *_described(result.run)]
    lines += ["; ".join(about), ""]
    for columns in filter(None, (headline, windows)):
        rows: dict[str, Mapping[str, float]] = {"this run": result.metrics}
        rows |= {name: row for name, row in paper.items() if any(column in row for column in columns)}
        lines += [*table(columns, rows), ""]
    for note in result.notes:
        lines += [note, ""]
    if result.failures:
        lines += ["**Failed, and missing from the numbers:**", ""]
        lines += [f"- {failure.error} (video {failure.video}, {failure.during})" for failure in result.failures]
        lines.append("")
    if result.warnings:
        lines += ["Accepted, as the published evaluators do, and counted:", ""]
        lines += [f"- {count} x {text}" for text, count in result.warnings.items()]
        lines.append("")
    return "\n".join(lines)


def table(columns: Sequence[str], rows: Mapping[str, Mapping[str, float]]) -> list[str]:
    """A Markdown table of percentages with one decimal more than the papers print."""
    lines = ["| | " + " | ".join(columns) + " |", "| --- |" + " ---: |" * len(columns)]
    for name, row in rows.items():
        cells = (_cell(row.get(column)) for column in columns)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def to_csv(result: EvaluationResult) -> str:
    """One row per video, worst first by the main metric."""
    columns = list(dict.fromkeys(name for video in result.videos.values() for name in video.metrics))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["video", "frames", "seconds", *columns])
    for name in result.worst_first():
        video = result.videos[name]
        numbers = [video.metrics.get(column, math.nan) for column in columns]
        writer.writerow([name, video.frames, *("" if math.isnan(n) else repr(n) for n in (video.seconds, *numbers))])
    return text.getvalue()


def _described(run: Mapping[str, Any]) -> list[str]:
    return [f"{key}: {value}" for key, value in run.items() if value and isinstance(value, str | int)]


def _cell(value: float | None) -> str:
    return "" if value is None else "–" if math.isnan(value) else f"{value:.2f}"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _numbers(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: _number(value) for name, value in values.items()}
