"""`report.json` and `report.html` of a job: one pass over its journal, in memory that does not grow with the videos."""

import base64
import html
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from heapq import heappush, heappushpop
from pathlib import Path
from typing import Any

import numpy as np

from entitysam.bulk.settings import DONE, Outcome
from entitysam.bulk.tables import PREVIEWS
from entitysam.io.files import whole_file

JSON, PAGE, SHEET = "report.json", "report.html", "contact_sheet.html"
SAMPLE = 20_000  # videos in quantiles and plots
SLOWEST, FAILURES, KINDS, PICTURES = 20, 1000, 50, 120


@dataclass
class Report:
    """What a job is in numbers.

    Attributes:
        videos, done, failed, frames, entities: counts.
        busy_seconds: of all workers together, on finished videos.
        workers: videos of each worker.
        per_video: seconds, frames and entities of at most `SAMPLE` videos, chosen at random.
        slowest: seconds, id and outcome of the `SLOWEST` videos.
        failures: the first `FAILURES`.
        kinds: number of failures by their message without names.
        pictures: `PICTURES` videos for the contact sheet, chosen at random.
    """

    videos: int = 0
    done: int = 0
    failed: int = 0
    frames: int = 0
    entities: int = 0
    busy_seconds: float = 0.0
    workers: dict[str, int] = field(default_factory=dict)
    per_video: list[tuple[float, int, int]] = field(default_factory=list)
    slowest: list[tuple[float, str, Outcome]] = field(default_factory=list)
    failures: list[Outcome] = field(default_factory=list)
    kinds: dict[str, int] = field(default_factory=dict)
    pictures: list[Outcome] = field(default_factory=list)

    @classmethod
    def of(cls, outcomes: Iterable[Outcome]) -> "Report":
        report, sample = cls(), np.random.default_rng(0)
        for outcome in outcomes:
            report._add(outcome, sample)
        report.slowest.sort(key=lambda item: (-item[0], item[1]))
        return report

    def _add(self, outcome: Outcome, sample: np.random.Generator) -> None:
        self.videos += 1
        if outcome.status != DONE:
            self.failed += 1
            if len(self.failures) < FAILURES:
                self.failures.append(outcome)
            kind = _kind(outcome)
            if kind in self.kinds or len(self.kinds) < KINDS:
                self.kinds[kind] = self.kinds.get(kind, 0) + 1
            return
        self.done += 1
        self.frames += outcome.frames
        self.entities += outcome.entities
        self.busy_seconds += outcome.seconds
        if outcome.worker in self.workers or len(self.workers) < 10_000:
            self.workers[outcome.worker] = self.workers.get(outcome.worker, 0) + 1
        row = (outcome.seconds, outcome.frames, outcome.entities)
        if len(self.per_video) < SAMPLE:
            self.per_video.append(row)
        elif (place := int(sample.integers(self.done))) < SAMPLE:
            self.per_video[place] = row
        if len(self.pictures) < PICTURES:
            self.pictures.append(outcome)
        elif (place := int(sample.integers(self.done))) < PICTURES:
            self.pictures[place] = outcome
        item = (outcome.seconds, outcome.id, outcome)
        if len(self.slowest) < SLOWEST:
            heappush(self.slowest, item)
        else:
            heappushpop(self.slowest, item)

    def as_json(self, run: Mapping[str, Any]) -> dict[str, Any]:
        """Plain data; `run` is what the driver knows of its last run."""
        rows = np.array(self.per_video, float).reshape(-1, 3)
        rates = rows[:, 1] / np.maximum(rows[:, 0], 1e-9)
        return {
            "videos": self.videos,
            "done": self.done,
            "failed": self.failed,
            "frames": self.frames,
            "entities": self.entities,
            "worker_seconds": round(self.busy_seconds, 3),
            "frames_per_worker_second": _rounded(self.frames / self.busy_seconds if self.busy_seconds else None),
            "run": dict(run),
            "seconds_per_video": _quantiles(rows[:, 0]),
            "frames_per_second": _quantiles(rates),
            "entities_per_video": _quantiles(rows[:, 2]),
            "videos_of_workers": self.workers,
            "slowest": [{"id": o.id, "path": o.path, "seconds": s, "frames": o.frames} for s, _, o in self.slowest],
            "failures": [{"id": o.id, "path": o.path, "error": o.error} for o in self.failures],
            "kinds_of_failures": dict(sorted(self.kinds.items(), key=lambda item: -item[1])),
        }


def write_report(out: Path, outcomes: Iterable[Outcome], run: Mapping[str, Any]) -> Report:
    """Writes `report.json`, `report.html` and `contact_sheet.html`; the pages need no other file.

    Args:
        out: of the job.
        outcomes: of its videos.
        run: what the driver knows of its last run, as plain data.
    """
    report = Report.of(outcomes)
    contents = report.as_json(run)
    with whole_file(out / JSON) as temporary:
        temporary.write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")
    with whole_file(out / PAGE) as temporary:
        temporary.write_text(_page(report, contents), encoding="utf-8")
    with whole_file(out / SHEET) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(_head(f"Contact sheet of {report.done} videos"))
        file.write('<p><a href="report.html">report</a></p><div class="sheet">')
        for outcome in sorted(report.pictures, key=lambda outcome: outcome.id):
            file.write(_figure(out, outcome))
        file.write("</div></body></html>\n")
    return report


def _kind(outcome: Outcome) -> str:
    """The message of a failure without what is particular to the video."""
    text = outcome.error.replace(outcome.path, "").replace(Path(outcome.path).name, "")
    return text.lstrip(" :") or outcome.error


def _quantiles(values: np.ndarray) -> dict[str, float | None]:
    if not len(values):
        return dict.fromkeys(("min", "median", "p95", "max"))
    found = np.quantile(values, [0, 0.5, 0.95, 1])
    return {name: _rounded(value) for name, value in zip(("min", "median", "p95", "max"), found)}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 3)


STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#18181b}
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}table{border-collapse:collapse;width:100%}
td,th{text-align:left;padding:.25em .7em .25em 0;border-bottom:1px solid #e4e4e7;overflow-wrap:anywhere}
td.n,th.n{text-align:right;white-space:nowrap}.tiles{display:flex;flex-wrap:wrap;gap:1em}
.tiles div{background:#f4f4f5;border-radius:8px;padding:.7em 1.1em}.tiles b{display:block;font-size:1.5em}
.sheet{display:grid;grid-template-columns:repeat(auto-fill,minmax(320px,1fr));gap:1em}figure{margin:0}
figure img{width:100%;border-radius:4px}figcaption{font-size:.85em;color:#52525b;overflow-wrap:anywhere}
.plots img{max-width:32%;min-width:300px}.bad{color:#b91c1c}"""


def _head(title: str) -> str:
    text = html.escape(title)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{text}</title><style>{STYLE}</style></head>'
        f"<body><h1>{text}</h1>"
    )


def _page(report: Report, contents: Mapping[str, Any]) -> str:
    run = contents["run"]
    tiles = {
        "videos done": f"{report.done} of {report.videos}",
        "failed": report.failed,
        "frames": report.frames,
        "frames/s, all workers, last run": run.get("frames_per_second") or "-",
        "frames/s of one worker": contents["frames_per_worker_second"] or "",
        "entities": report.entities,
    }
    parts = [_head(f"Bulk job: {report.done} of {report.videos} videos"), '<div class="tiles">']
    parts += [f"<div><b>{html.escape(str(value))}</b>{html.escape(name)}</div>" for name, value in tiles.items()]
    parts.append("</div>")
    if report.per_video:
        parts.append('<h2>Videos</h2><p><a href="contact_sheet.html">contact sheet</a></p><div class="plots">')
        parts += [f'<img alt="{name}" src="data:image/png;base64,{data}">' for name, data in _plots(report).items()]
        rows = [(o.id, f"{seconds:.1f}", o.frames, f"{o.frames / max(seconds, 1e-9):.2f}", o.entities)
                for seconds, _, o in report.slowest]  # fmt: skip
        parts.append(
            "</div><h2>Slowest videos</h2>" + _table(("video", "seconds", "frames", "frames/s", "entities"), rows)
        )
    if report.failed:
        parts.append(f'<h2 class="bad">{report.failed} failures</h2>')
        parts.append(_table(("kind", "videos"), list(contents["kinds_of_failures"].items())))
        more = report.failed - len(report.failures)
        parts.append("<h2>Failed videos</h2>" + _table(("video", "error"), [(o.id, o.error) for o in report.failures]))
        parts.append(f"<p>and {more} more, see videos.parquet</p>" if more else "")
    parts.append("</body></html>\n")
    return "".join(parts)


def _table(names: tuple[str, ...], rows: list[Any]) -> str:
    def cell(tag: str, value: object, place: int) -> str:
        return f"<{tag}{' class=n' if place and names[-1] != 'error' else ''}>{html.escape(str(value))}</{tag}>"

    lines = ["".join(cell("th", name, place) for place, name in enumerate(names))]
    lines += ["".join(cell("td", value, place) for place, value in enumerate(row)) for row in rows]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _plots(report: Report) -> dict[str, str]:
    from matplotlib.figure import Figure

    rows = np.array(report.per_video, float)
    rates = rows[:, 1] / np.maximum(rows[:, 0], 1e-9)
    plots = {}
    for name, values in (("frames/s of a worker", rates), ("entities per video", rows[:, 2])):
        figure = Figure(figsize=(4, 2.8))
        axes = figure.add_subplot(xlabel=name, ylabel="videos")
        axes.hist(values, bins=min(30, max(5, len(rows) // 4)), color="#2563eb")
        plots[name] = _png(figure)
    figure = Figure(figsize=(4, 2.8))
    figure.add_subplot(xlabel="frames", ylabel="seconds").scatter(
        rows[:, 1], rows[:, 0], s=10, alpha=0.5, color="#2563eb"
    )
    plots["seconds by frames"] = _png(figure)
    return plots


def _png(figure: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _figure(out: Path, outcome: Outcome) -> str:
    try:
        data = (out / PREVIEWS / f"{Path(outcome.file).stem}.jpg").read_bytes()
    except OSError:
        return ""
    caption = f"{outcome.id}: {outcome.frames} frames, {outcome.entities} entities"
    picture = base64.b64encode(data).decode("ascii")
    return f'<figure><img alt="" src="data:image/jpeg;base64,{picture}"><figcaption>{html.escape(caption)}</figcaption></figure>'
