"""Compares two results: metrics, then the videos ordered by the loss of the second result."""

import math
from pathlib import Path

from entitysam.engine.evaluate.report.result import EvaluationResult, read_result, table

MOST = 30  # listed videos


def compare(first: str | Path, second: str | Path, most: int = MOST) -> str:
    """Markdown: the metrics of two results and their difference, then the videos.

    Args:
        first, second: `result.json` files, or their folders.
        most: number of videos to list.

    Raises:
        FileNotFoundError, ValueError: not two results.
    """
    a, b = read_result(first), read_result(second)
    columns = [name for name in a.metrics if name in b.metrics]
    rows = {str(first): a.metrics, str(second): b.metrics}
    rows["difference"] = {name: b.metrics[name] - a.metrics[name] for name in columns}
    lines = [f"# {a.title}" if a.title == b.title else f"# {a.title} | {b.title}", "", *table(columns, rows), ""]
    shared, metric = differences(a, b), a.main_metric
    if shared:
        lines += [f"| video | {metric}, first | second | difference |", "| --- | ---: | ---: | ---: |"]
        for name, before, after in shared[:most]:
            lines.append(f"| {name} | {before:.2f} | {after:.2f} | {after - before:+.2f} |")
        lines.append("")
    only = len(a.videos.keys() ^ b.videos.keys())
    if only or len(shared) > most:
        lines.append(f"{max(len(shared) - most, 0)} more videos; {only} videos are in one of the two results only.")
    return "\n".join(lines)


def differences(a: EvaluationResult, b: EvaluationResult) -> list[tuple[str, float, float]]:
    """(video, first, second) main metric of the videos in both results, largest loss of the second first."""
    metric = a.main_metric
    pairs = [
        (name, a.videos[name].metrics.get(metric, math.nan), b.videos[name].metrics.get(metric, math.nan))
        for name in a.videos
        if name in b.videos
    ]
    known = [pair for pair in pairs if not (math.isnan(pair[1]) or math.isnan(pair[2]))]
    return sorted(known, key=lambda pair: (pair[2] - pair[1], pair[2], pair[0]))
