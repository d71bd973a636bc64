"""Starts the worker for an upload, follows its progress, and opens what it made."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from entitysam.edits.corrections import Track, find_corrections
from entitysam.edits.operations import Masks
from entitysam.io.files import as_stem, make_folder, whole_file
from entitysam.serve.jobs import Job
from entitysam.serve.opened import OpenedResult
from entitysam.serve.workspace import Workspace

SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".gif", ".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")  # fmt: skip
PATIENCE = 180  # seconds until a worker that was asked to end is killed
OWNER = "owner.json"


class UploadError(ValueError):
    """An upload that is not taken; the message says why."""


@dataclass(frozen=True)
class Limits:
    """What the server takes.

    Attributes:
        upload_mib: size of an upload.
        pixels: of a frame.
        max_frames: of a video; the rest is left out.
        file_mib: largest file that a worker writes.
        memory_mib: address space of a worker; 0 = no limit (CUDA maps more than it uses).
    """

    upload_mib: int = 2048
    pixels: int = 4096 * 4096
    max_frames: int = 20_000
    file_mib: int = 16 * 1024
    memory_mib: int = 0


@dataclass(frozen=True)
class Prompter:
    """A SAM 2.1: a weight file as `model`, or a name and its weights; `overrides` of its config."""

    model: str
    weights: str | None = None
    overrides: dict[str, Any] = field(default_factory=dict)


@dataclass
class Studio:
    """Where uploads are segmented.

    Attributes:
        folder: of uploads and their results: one folder each, with a random name.
        model, weights, device: of the network.
        prompter: SAM 2.1, which follows what is clicked; None = prompts are not taken.
    """

    folder: Path
    model: str = "tiny"
    weights: str | None = None
    device: str = "auto"
    limits: Limits = field(default_factory=Limits)
    prompter: "Prompter | None" = None
    _known: list[Any] = field(default_factory=list)
    _processes: set[subprocess.Popen[bytes]] = field(default_factory=set)

    def new_place(self, name: str, tab: str) -> Path:
        """An empty folder for an upload; returns the path of the file in it.

        Args:
            name: of the file on the user's machine; only its suffix and, as a title, its stem are taken.
            tab: the owner.

        Raises:
            UploadError: a suffix that is not taken.
            OutputError: the folder cannot be written to.
        """
        suffix = Path(name.replace("\\", "/")).suffix.lower()
        if suffix not in SUFFIXES:
            raise UploadError(f"only videos and images are taken ({', '.join(s[1:] for s in SUFFIXES)})")
        return self.new_folder(name, tab) / f"upload{suffix}"

    def new_folder(self, name: str, tab: str | None, origin: dict[str, Any] | None = None) -> Path:
        """An empty folder for a result.

        Args:
            name: of the input; its last part is the title, without the suffix of a video or image.
            tab: the owner; None = every tab.
            origin: of an input of this machine (see `identity_of`).

        Raises:
            OutputError: the folder cannot be written to.
        """
        place = make_folder(self.folder / secrets.token_hex(8))
        last = Path(name.replace("\\", "/"))
        title = as_stem(last.stem if last.suffix.lower() in SUFFIXES else last.name)[:100]
        with whole_file(place / OWNER) as temporary:
            temporary.write_text(json.dumps({"tab": tab, "title": title, "origin": origin}), encoding="utf-8")
        return place

    def title_of(self, place: Path) -> str:
        return str(_read_owner(place).get("title") or "upload")

    def reopen(self, workspace: Workspace) -> None:
        """Opens the results that earlier runs of the server made, each for its tab."""
        if not self.folder.is_dir():
            return
        for place in sorted(self.folder.iterdir()):
            owner = _read_owner(place)
            tab = owner.get("tab", 0)
            if tab is None or isinstance(tab, str):
                with suppress(ValueError, OSError):
                    workspace.add(self.title_of(place), OpenedResult(place / "result"), tab, key=place.name)
                    self._known.append(owner.get("origin"))

    def knows(self, origin: dict[str, Any]) -> bool:
        """Whether `reopen` has opened the result of an input."""
        return origin in self._known

    def segment(
        self, job: Job, place: Path, file: str, workspace: Workspace, online: bool, max_frames: int | None
    ) -> None:
        """The work of a job: segments a file and opens the result for its tab.

        Args:
            job: it.
            place: a folder of `new_folder`, which is removed where there is no result.
            file: what is segmented.
            workspace: gets the result.
            online: frame by frame, not in two passes.
            max_frames: of the file; None = as many as the server takes.
        """
        title = self.title_of(place)
        frames = min(max_frames or self.limits.max_frames, self.limits.max_frames)
        order = {**self.order(place, title, frames), "kind": "segment", "input": file, "online": online}
        try:
            finished = self._run(job, order)
        except BaseException:
            self.discard(place)
            raise
        if job.cancelled.is_set():
            job.message = f"stopped after {_frames(finished)}"
        entry = workspace.add(title, OpenedResult(place / "result"), job.owner, key=place.name)
        job.result = entry.key

    def order(self, place: Path, title: str, max_frames: int) -> dict[str, Any]:
        """What every job of the worker has."""
        return {"out": str(place / "result"), "title": title, "model": self.model, "weights": self.weights,
                "device": self.device, "max_frames": max_frames, "limits": self._process_limits()}  # fmt: skip

    def _process_limits(self) -> dict[str, int]:
        limits = self.limits
        return {"pixels": limits.pixels, "file_mib": limits.file_mib, "memory_mib": limits.memory_mib}

    def start(self, order: dict[str, Any]) -> "subprocess.Popen[bytes]":
        """A worker with its job; the caller ends it."""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        process = subprocess.Popen([sys.executable, "-m", "entitysam.serve.worker"], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)  # fmt: skip
        self._processes.add(process)
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(order).encode() + b"\n")
            process.stdin.flush()
        return process

    def ended(self, process: "subprocess.Popen[bytes]") -> None:
        """Forgets a worker."""
        self._processes.discard(process)

    def follow(self, job: Job, opened: OpenedResult, entity: int, prompt: dict[str, Any]) -> None:
        """The work of a job: follows a prompted object with SAM 2.1 and gives its masks to an entity, as one edit.

        Args:
            job: it; what is finished when it is cancelled becomes an edit, too.
            opened: the result.
            entity: id.
            prompt: "frame", "direction" ("forward", "backward", "here"), "points", "labels", "box".
        """
        prompter = self.prompter
        if prompter is None:
            raise UploadError("clicks and boxes need SAM 2.1: start the server with --prompter sam2.1_hiera_small.pt")
        masks: dict[str, list[int]] = {}

        def take(news: dict[str, Any]) -> None:
            if "mask" in news:
                masks[str(news["frame"])] = news["mask"]

        order = {"kind": "follow", "source": opened.source, "times": opened.saved.times, "frame": prompt["frame"],
                 "direction": prompt["direction"], "prompt": prompt, "model": prompter.model,
                 "weights": prompter.weights, "overrides": prompter.overrides, "device": self.device,
                 "limits": self._process_limits()}  # fmt: skip
        self._run(job, order, take)
        opened.edit(Masks(id=entity, masks=masks))
        if job.cancelled.is_set():
            job.message = f"stopped after {_frames(len(masks))}"

    def correct(self, job: Job, opened: OpenedResult, path: Path, format: str) -> None:
        """The work of a job: makes the edits that turn a result into a file that was corrected in another program.

        Args:
            job: it; its message says what was changed.
            opened: the result, as it was exported to be corrected.
            path: the file, which is removed.
            format: of `exchange.FORMATS`.

        Raises:
            UploadError: the file cannot be read.
            EditError: it does not belong to the result.
            StaleError: the result was edited meanwhile.
        """
        tracks: dict[int, Track] = {}

        def take(news: dict[str, Any]) -> None:
            if "name" in news:
                tracks[news["track"]] = Track(news["name"])
            elif "mask" in news:
                tracks[news["track"]].masks[news["frame"]] = news["mask"]

        order = {"kind": "corrections", "input": str(path), "format": format, "shape": list(opened.shape),
                 "limits": self._process_limits()}  # fmt: skip
        try:
            self._run(job, order, take)
        finally:
            path.unlink(missing_ok=True)
        now = opened.snapshot()
        job.done, job.total = 0, 2 * opened.num_frames
        found = find_corrections(list(tracks.values()), now.table, opened.shape, now.ids, job.step)
        opened.edit_all(found.edits, now.revision)
        job.message = found.summary

    def _run(self, job: Job, order: dict[str, Any], take: Callable[[dict[str, Any]], None] = lambda news: None) -> int:
        """Runs the worker; returns the number of frames that it finished. `take` gets every line that it writes.

        Raises:
            UploadError: what the worker says, or how it ended.
        """
        process = self.start(order)
        threading.Thread(target=_end_when_cancelled, args=(process, job), daemon=True).start()
        finished, problem = 0, ""
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            with suppress(BrokenPipeError):
                process.stdin.close()
            for line in process.stdout:
                news = json.loads(line)
                take(news)
                job.total, job.done = news.get("total", job.total), news.get("done", job.done)
                finished, problem = news.get("finished", finished), news.get("error", problem)
            process.wait()
        finally:
            self.ended(process)
        if problem:
            raise UploadError(_without_path(problem, order.get("input")))
        if not finished:
            raise UploadError("it was stopped before a frame was finished" if job.cancelled.is_set() else
                              f"the process that segments it ended early (status {process.returncode})")  # fmt: skip
        return finished

    def discard(self, place: Path) -> None:
        """Removes the folder of an upload that was not taken."""
        shutil.rmtree(place, ignore_errors=True)

    def close(self) -> None:
        for process in list(self._processes):
            with suppress(OSError):
                process.terminate()


def _without_path(text: str, file: str | None) -> str:
    """A message without the place of the file, which is none that the user has chosen."""
    if file is not None:
        for place in (file, Path(file).name):
            text = text.replace(f"{place}: ", "")
    return text


def identity_of(path: Path) -> dict[str, Any]:
    """A file of this machine as it is now."""
    status = path.stat()
    return {"path": str(path.absolute()), "bytes": status.st_size, "changed_ns": status.st_mtime_ns}


def _end_when_cancelled(process: "subprocess.Popen[bytes]", job: Job) -> None:
    while process.poll() is None:
        if job.cancelled.wait(0.2):
            with suppress(OSError):
                process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
            return


def _read_owner(place: Path) -> dict[str, Any]:
    try:
        owner = json.loads((place / OWNER).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _frames(count: int) -> str:
    return f"{count} frame" + ("" if count == 1 else "s")
