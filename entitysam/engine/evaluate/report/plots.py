"""Plots of an evaluation: quality by window length, quality per video, and the contact sheet of the worst videos."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from entitysam.data.evaluation.base import EvaluationSet
from entitysam.engine.evaluate.report.result import EvaluationResult, Paper
from entitysam.engine.evaluate.report.worst_videos import worst_videos_sheet
from entitysam.engine.formats.base import PredictionFormat
from entitysam.io.files import make_folder, whole_file

matplotlib.use("Agg")

FOLDER = "plots"


def write_plots(
    result: EvaluationResult,
    folder: Path,
    paper: Paper,
    dataset: EvaluationSet,
    prediction_format: PredictionFormat,
    worst: int,
) -> None:
    """Writes the plots of a result to `folder`/plots.

    Args:
        result: of the evaluation.
        folder: of the report.
        paper: rows of published numbers in percent.
        dataset: of the evaluation.
        prediction_format: reads the predictions.
        worst: number of videos on the contact sheet; 0 = no sheet.
    """
    if not result.metrics or not result.videos:
        return
    make_folder(folder / FOLDER)
    if any("@" in name for name in result.metrics):
        longest = max(video.frames for video in result.videos.values())
        save(window_figure({"this run": result.metrics, **paper}, longest), folder / FOLDER / "windows.png")
    save(scatter_figure(result), folder / FOLDER / "per_video.png")
    sheet = worst_videos_sheet(result, dataset, prediction_format, worst)
    if sheet is not None:
        with whole_file(folder / FOLDER / "worst_videos.png") as temporary:
            sheet.save(temporary, format="PNG")


def window_figure(rows: Mapping[str, Mapping[str, float]], longest: int) -> Figure:
    """Quality against the length of the clips (the EntitySAM paper's Figure 3).

    Args:
        rows: name of the curve -> metrics; those like VEQ@4 are drawn.
        longest: windows above this length have no clip and are left out.
    """
    figure, axes = _new_figure("frames per clip", "")
    for name, metrics in rows.items():
        points = [
            (metric.partition("@")[0], int(metric.partition("@")[2]), value)
            for metric, value in metrics.items()
            if metric.partition("@")[2].isdigit() and int(metric.partition("@")[2]) <= longest
        ]
        for quality in dict.fromkeys(point[0] for point in points):
            windows, values = zip(*[(window, value) for kind, window, value in points if kind == quality])
            axes.plot(windows, values, marker="o", label=f"{quality}, {name}")
            axes.set_ylabel(quality)
            axes.set_xticks(windows)
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure


def scatter_figure(result: EvaluationResult) -> Figure:
    """The main metric of every video against its length, with the names of the three worst."""
    metric = result.main_metric
    figure, axes = _new_figure("frames", metric)
    points = {
        name: (video.frames, video.metrics[metric])
        for name, video in result.videos.items()
        if not math.isnan(video.metrics.get(metric, math.nan))
    }
    if points:
        axes.scatter(*zip(*points.values()), s=14, alpha=0.6)
    for name in [name for name in result.worst_first() if name in points][:3]:
        axes.annotate(name, points[name], fontsize=7, xytext=(4, 2), textcoords="offset points")
    axes.set_ylim(-2, 102)
    axes.set_title(f"{result.title}: {len(points)} videos", fontsize=9)
    return figure


def comparison_figure(first: EvaluationResult, second: EvaluationResult, names: tuple[str, str]) -> Figure:
    """Main metric of the videos in both results, second against first; below the diagonal the second is worse."""
    metric = first.main_metric
    figure, axes = _new_figure(f"{metric}, {names[0]}", f"{metric}, {names[1]}")
    shared = [
        (first.videos[name].metrics.get(metric, math.nan), second.videos[name].metrics.get(metric, math.nan))
        for name in first.videos
        if name in second.videos
    ]
    axes.plot([0, 100], [0, 100], color="grey", linewidth=0.8)
    if shared:
        axes.scatter(*zip(*shared), s=14, alpha=0.6)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG."""
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150, bbox_inches="tight")


def _new_figure(x: str, y: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(5, 3.6))
    axes: Axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    return figure, axes
