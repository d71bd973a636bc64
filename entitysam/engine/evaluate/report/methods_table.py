"""Several methods side by side: a Markdown table, a CSV file, bars with confidence intervals, and the videos on which they differ most."""

import csv
import io
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from entitysam.data.evaluation.base import EvaluationSet
from entitysam.data.images import read_image
from entitysam.engine.evaluate.report.plots import save
from entitysam.engine.evaluate.report.result import EvaluationResult
from entitysam.engine.evaluate.report.worst_videos import draw_rows, in_same_colours, thumbnail
from entitysam.engine.formats.base import PredictionFormat, resize_ids
from entitysam.io.files import whole_file
from entitysam.structures import Video
from entitysam.visualization.overlay import draw_entities

logger = logging.getLogger(__name__)

TABLE, CSV, BARS, SHEET = "comparison.md", "comparison.csv", "comparison.png", "differences.png"


@dataclass(frozen=True)
class Row:
    """A method of the table.

    Attributes:
        title: its name.
        paper: published numbers, metric -> percent.
        result: of its evaluation; None where it was not run.
        folder: of its predictions.
        problem: why it was not run.
    """

    title: str
    paper: Mapping[str, float]
    result: EvaluationResult | None = None
    folder: Path | None = None
    problem: str = ""


def write_comparison(
    rows: Sequence[Row], folder: Path, dataset: EvaluationSet, formats: Mapping[str, PredictionFormat], videos: int
) -> None:
    """Writes `comparison.md`, `comparison.csv`, `comparison.png` and `differences.png`.

    Args:
        rows: the methods, in the order of the table.
        folder: of the files.
        dataset: on which they ran.
        formats: title -> reads the predictions of the method.
        videos: number of videos on the contact sheet; 0 = no sheet.
    """
    for name, text in ((TABLE, to_markdown(rows, dataset.title)), (CSV, to_csv(rows))):
        with whole_file(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    if any(row.result is not None for row in rows):
        save(bars_figure(rows, dataset.title), folder / BARS)
        sheet = differences_sheet(rows, dataset, formats, videos) if videos else None
        if sheet is not None:
            with whole_file(folder / SHEET) as temporary:
                sheet.save(temporary, format="PNG")


def metric_names(rows: Sequence[Row]) -> list[str]:
    """The metrics of the table, without those of single windows."""
    return list(
        dict.fromkeys(name for row in rows if row.result is not None for name in row.result.metrics if "@" not in name)
    )


def to_markdown(rows: Sequence[Row], title: str) -> str:
    """The table, the differences to the first method, and what was not run."""
    metrics, published = metric_names(rows), list(dict.fromkeys(name for row in rows for name in row.paper))
    columns = [*metrics, *(f"paper: {name}" for name in published), "frames/s", "MiB"]
    lines = [f"# {title}", "", "| | " + " | ".join(columns) + " |", "| --- |" + " ---: |" * len(columns)]
    for row in rows:
        cells = [_measured(row.result, name) for name in metrics]
        cells += [_number(row.paper.get(name)) for name in published]
        speed, memory = (row.result.frames_per_second, row.result.peak_memory) if row.result else (math.nan, math.nan)
        lines.append(f"| {row.title} | " + " | ".join([*cells, _number(speed, 2), _number(memory, 0)]) + " |")
    bounded = any(row.result is not None and row.result.intervals() for row in rows)
    interval = "[low, high]: 95 % confidence interval over the videos (bootstrap). " if bounded else ""
    lines += ["", f"{interval}MiB: highest memory of the process while a video was segmented.", ""]
    lines += _differences(rows)
    for row in rows:
        if row.problem:
            lines.append(f"- not run: {row.title}: {row.problem}")
        elif row.result is not None and row.result.failures:
            lines.append(f"- {row.title}: {len(row.result.failures)} failures, see {row.title}/result.md")
    return "\n".join(lines).rstrip() + "\n"


def _differences(rows: Sequence[Row]) -> list[str]:
    """Paired differences of the main metrics to the first method that ran, with their intervals."""
    ran = [row for row in rows if row.result is not None and row.result.samples and len(row.result.videos) > 1]
    if len(ran) < 2:
        return []
    first = ran[0].result
    assert first is not None
    names = list(first.samples)
    lines = [f"| difference to {ran[0].title} | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names)]
    for row in ran[1:]:
        assert row.result is not None
        cells = []
        for name in names:
            other, own = row.result.samples.get(name), first.samples[name]
            if other is None or list(row.result.videos) != list(first.videos):
                cells.append("–")
                continue
            low, high = np.nanpercentile(other - own, [2.5, 97.5])
            cells.append(f"{row.result.metrics[name] - first.metrics[name]:+.1f} [{low:+.1f}, {high:+.1f}]")
        lines.append(f"| {row.title} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _measured(result: EvaluationResult | None, name: str) -> str:
    if result is None:
        return "–"
    text, interval = _number(result.metrics.get(name)), result.intervals().get(name)
    return text if interval is None else f"{text} [{interval[0]:.1f}, {interval[1]:.1f}]"


def _number(value: float | None, digits: int = 1) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def to_csv(rows: Sequence[Row]) -> str:
    """One row per method at full precision; empty = unknown."""
    every = list(dict.fromkeys(name for row in rows if row.result for name in row.result.metrics))
    published = list(dict.fromkeys(name for row in rows for name in row.paper))
    bounded = list(dict.fromkeys(name for row in rows if row.result for name in row.result.intervals()))
    bounds = [f"{name} {side}" for name in bounded for side in ("low", "high")]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [
            "method",
            "problem",
            "videos",
            "frames_per_second",
            "peak_mib",
            *every,
            *bounds,
            *(f"paper {name}" for name in published),
        ]
    )
    for row in rows:
        values: list[float] = []
        if row.result is None:
            values = [math.nan] * (3 + len(every) + len(bounds))
        else:
            intervals = row.result.intervals()
            values = [len(row.result.videos), row.result.frames_per_second, row.result.peak_memory]
            values += [row.result.metrics.get(name, math.nan) for name in every]
            values += [side for name in bounded for side in intervals.get(name, [math.nan, math.nan])]
        values += [row.paper.get(name, math.nan) for name in published]
        writer.writerow([row.title, row.problem, *("" if math.isnan(value) else repr(value) for value in values)])
    return text.getvalue()


def bars_figure(rows: Sequence[Row], title: str) -> Figure:
    """A panel per main metric: a bar per method with its interval; a cross is the paper's number."""
    ran = [row for row in rows if row.result is not None]
    names = list(dict.fromkeys(name for row in ran if row.result for name in row.result.samples))
    names = names or metric_names(rows)[:1]
    shown = [row for row in rows if row.result is not None or any(name in row.paper for name in names)]
    figure = Figure(figsize=(3.2 * max(len(names), 1) + 2.2, 0.42 * len(shown) + 1.2))
    for panel, name in enumerate(names, start=1):
        axes = figure.add_subplot(1, len(names), panel)
        for place, row in enumerate(shown):
            value = math.nan if row.result is None else row.result.metrics.get(name, math.nan)
            interval = None if row.result is None else row.result.intervals().get(name)
            if not math.isnan(value):
                axes.barh(place, value, color="#4c78a8")
                if interval is not None:
                    axes.plot(interval, [place, place], color="black", linewidth=1.4)
            if name in row.paper:
                axes.plot(row.paper[name], place, marker="x", color="#e45756", markersize=7)
        axes.set_yticks(
            range(len(shown)), [row.title for row in shown] if panel == 1 else [""] * len(shown), fontsize=8
        )
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.set_xlabel(name)
        axes.grid(axis="x", alpha=0.3)
    figure.suptitle(title, fontsize=9)
    return figure


def most_different(rows: Sequence[Row], count: int) -> list[str]:
    """Videos with the largest range of the main metric over the methods, largest first."""
    results = [row.result for row in rows if row.result is not None]
    if len(results) < 2:
        return []
    metric, spread = results[0].main_metric, {}
    for name in results[0].videos:
        values = [result.videos[name].metrics.get(metric, math.nan) for result in results if name in result.videos]
        known = [value for value in values if not math.isnan(value)]
        if len(known) > 1:
            spread[name] = max(known) - min(known)
    return sorted(spread, key=lambda name: (-spread[name], name))[:count]


def differences_sheet(
    rows: Sequence[Row], dataset: EvaluationSet, formats: Mapping[str, PredictionFormat], count: int
) -> Image.Image | None:
    """The middle frame of the videos on which the methods differ most: annotated, then segmented by each method.

    Returns:
        the sheet; None if no video can be drawn.
    """
    ran = [row for row in rows if row.result is not None]
    videos = {str(video.video_id): video for video in dataset.videos}
    drawn = []
    for name in most_different(ran, count):
        try:
            thumbnails = _middle_frame(ran, videos[name], formats)
        except Exception as error:  # the report is complete without this row
            logger.warning("video %s is not on the contact sheet: %s", name, error)
            continue
        values = (
            f"{row.title} {_number(row.result.videos[name].metrics.get(row.result.main_metric))}"
            for row in ran
            if row.result is not None and name in row.result.videos
        )
        drawn.append((f"{name}   annotated | {' | '.join(values)}", thumbnails))
    return draw_rows(drawn) if drawn else None


def _middle_frame(rows: Sequence[Row], video: Video, formats: Mapping[str, PredictionFormat]) -> list[Image.Image]:
    frame, size = len(video) // 2, (video.height, video.width)
    image = read_image(video.frame_files[frame], size)
    thumbnails: list[Image.Image] = []
    for row in rows:
        entry = next(iter(formats[row.title].read_index().get(str(video.video_id), [])), None)
        sides = (resize_ids(ids, size)[None] for ids in formats[row.title].maps(video, entry, frame))
        truth, predicted = in_same_colours(*sides)
        if not thumbnails:
            thumbnails.append(thumbnail(draw_entities(image, truth[0], labels=False)))
        thumbnails.append(thumbnail(draw_entities(image, predicted[0], labels=False)))
    return thumbnails
