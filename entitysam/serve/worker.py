"""Segments one input in a process of its own, with limits: what somebody uploads is never decoded by the server.

    python -m entitysam.serve.worker < job.json

The frames are written again to `clip.mp4` beside the result, which is what the server reads. Progress is written to standard
output, one JSON object per line: {"total": 240}, {"done": 12}, {"error": "..."}, {"finished": 24}. SIGTERM ends the run after the
current frame; what is finished stays. The run also ends that way when the server is gone.

Jobs have a kind: "segment" as above, "live", "stream", "follow", "corrections". A live job gets its frames on standard input, behind the line of the job: 4 bytes of length, a JPEG. For each frame
its map is written: {"frame": 3, "runs": "<base64 of `serve.packing.pack_maps`>", "entities": {"2": 0.8}, "events": [["born", 2]]}.
A stream is opened by the worker itself, and "jpeg" in the line is the frame. A job that follows a prompted object writes {"frame": 3, "mask": [lengths of runs]} for each frame. A job of corrections reads a
video of another program and writes its tracks: {"track": 0, "name": "dog"}, then {"track": 0, "frame": 3, "mask": [lengths of runs]}.
"""

import base64
import io
import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

MIB = 2**20


def main() -> int:
    job = json.loads(sys.stdin.buffer.readline())
    limit_process(job["limits"])
    stop = _Stop()
    try:
        kinds = {"segment": run, "live": run_live, "stream": run_stream, "follow": run_follow,
                 "corrections": run_corrections}  # fmt: skip
        work = kinds[job["kind"]]
        finished = work(job, stop)
    except (ValueError, OSError, MemoryError) as error:
        text = " ".join(str(error).split()) or "not enough memory"
        tell({"error": text})
        return 2
    tell({"finished": finished})
    return 0


def tell(line: dict[str, Any]) -> None:
    """Writes a line of the protocol to standard output; nothing happens where the server is gone."""
    with suppress(BrokenPipeError):
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


class _Asked(Exception):
    """SIGTERM has arrived while the run waited for a frame."""


class _Stop:
    """Whether the run should end: SIGTERM has arrived, or the parent process is gone."""

    def __init__(self) -> None:
        self._parent = os.getppid()
        self._asked = self._waits = False
        signal.signal(signal.SIGTERM, self._ask)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C on the server's terminal: the server decides

    def _ask(self, number: int, frame: object) -> None:
        self._asked = True
        if self._waits:
            self._waits = False
            raise _Asked

    def until_asked(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The frames until the run should end, also while a stream is silent."""
        remaining = iter(frames)
        while not self.requested:
            try:
                self._waits = True
                frame = next(remaining, None)
                self._waits = False
            except _Asked:
                return
            if frame is None:
                return
            yield frame

    @property
    def requested(self) -> bool:
        return self._asked or os.getppid() != self._parent


def limit_process(limits: dict[str, int]) -> None:
    """Bounds the size of written files, open files and, where it is given, memory; no core files."""
    try:
        import resource
    except ImportError:  # Windows
        return
    wanted = {"RLIMIT_CORE": 0, "RLIMIT_FSIZE": limits["file_mib"] * MIB, "RLIMIT_NOFILE": 512}
    if limits.get("memory_mib"):
        wanted["RLIMIT_AS"] = limits["memory_mib"] * MIB
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a file that is too large is an OSError
    for name, value in wanted.items():
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with suppress(ValueError, OSError):  # macOS refuses some
            resource.setrlimit(kind, (value, value))


def run(job: dict[str, Any], stop: _Stop) -> int:
    """Segments; returns the number of frames of the result."""
    from entitysam.io.readers.source import InputError, open_frames

    with open_frames(job["input"], max_frames=job["max_frames"]) as source:
        if source.is_live:
            raise InputError("a live input cannot be segmented here")
        _check_size(source, job["limits"])
        tell({"total": source.num_frames or 0})
        segmenter = _open_segmenter(job)
        write = _write_online if job["online"] else _write_offline
        return write(segmenter, source, Path(job["out"]), job["title"], stop)


def run_corrections(job: dict[str, Any], stop: _Stop) -> int:
    """Reads a video that was corrected in another program; returns the number of its tracks."""
    from entitysam.edits.maps import encode_mask
    from entitysam.exchange.convert import find_format
    from entitysam.exchange.video import decode

    video = find_format(job["format"]).reader(job["format"])(Path(job["input"]))
    if [video.height, video.width] != job["shape"]:
        expected = f"{job['shape'][1]}x{job['shape'][0]}"
        raise ValueError(f"its frames are {video.width}x{video.height}, those of the result {expected}")
    for index, entity in enumerate(video.entities):
        tell({"track": index, "name": entity.name or ""})
        for frame, instance in entity.instances.items():
            if instance.mask is None:
                raise ValueError(f"track {entity.id}: frame {frame} is a box; corrections are polygons or masks")
            tell({"track": index, "frame": frame, "mask": encode_mask(decode(instance.mask))})
            if stop.requested:
                raise ValueError("it was stopped")
    return max(1, len(video.entities))


def run_follow(job: dict[str, Any], stop: _Stop) -> int:
    """Follows one prompted object with SAM 2.1 from a frame on; returns the number of masks."""
    from entitysam.edits.maps import encode_mask
    from entitysam.engine.build import open_model
    from entitysam.io.readers.random_access import RandomAccess
    from entitysam.io.readers.source import open_frames
    from entitysam.sam2.session import PromptedSession

    frames = _CountedFrames(RandomAccess(open_frames(**job["source"]), job["times"]), len(job["times"]))
    start, prompt = job["frame"], job["prompt"]
    last = {"forward": len(frames) - 1, "backward": 0, "here": start}[job["direction"]]
    tell({"total": abs(last - start) + 1})
    network = {"weights": job["weights"], "device": job["device"], "overrides": job["overrides"]}
    opened = open_model(job["model"], **network, kind="sam2")
    session = PromptedSession(opened.model, frames, keep_history=False)
    found = [session.add_points(start, 1, prompt["points"], prompt["labels"], prompt["box"])]
    count = 0
    for tracked in chain(found, _rest(session, start, last)):
        mask = (tracked.mask_logits[0] > 0).cpu().numpy()
        count += 1
        tell({"done": count, "frame": tracked.index, "mask": encode_mask(mask)})
        if stop.requested:
            break
    return count


def _rest(session: Any, start: int, last: int) -> Iterator[Any]:
    step = 1 if last > start else -1
    for index in range(start + step, last + step, step) if last != start else ():
        yield session.step(index, reverse=step < 0)


class _CountedFrames:
    """Frames by their number, and how many there are."""

    def __init__(self, frames: Any, count: int):
        self._frames, self._count = frames, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> np.ndarray:
        return self._frames[index]


def run_live(job: dict[str, Any], stop: _Stop) -> int:
    """Segments the frames of standard input as they come, until it ends; returns their number."""
    segmenter = _open_segmenter(job)
    tell({"ready": True})
    return _write_live(segmenter, _LiveFrames(job["limits"]["pixels"], job["max_frames"]), job, stop)


def run_stream(job: dict[str, Any], stop: _Stop) -> int:
    """Segments the frames of a stream or camera of this machine as they come, until it ends or is stopped; returns their number."""
    from entitysam.io.readers.source import FrameSource, open_frames

    opened = open_frames(job["input"])
    with FrameSource(opened.decoder, max_frames=job["max_frames"], drop_stale=opened.is_live) as frames:
        _check_size(frames, job["limits"])
        segmenter = _open_segmenter(job)
        return _write_live(segmenter, frames, job, stop, with_frames=True)


def _write_live(segmenter: Any, frames: Any, job: dict[str, Any], stop: _Stop, with_frames: bool = False) -> int:
    """Writes and tells every frame when it is segmented."""
    from entitysam.serve.packing import Runs, encode_jpeg, pack_maps

    scores: dict[int, list[float]] = {}
    with ExitStack() as stack:
        output: _Output | None = None
        for result in segmenter.stream(stop.until_asked(frames)):
            if output is None:
                output = stack.enter_context(_Output(Path(job["out"]), job["title"], frames, count_steps=False))
            time = frames.time(result.index)
            output.add(f"{result.index:05d}", result.frame, result.ids, result.scores, time)
            for entity, score in result.scores.items():
                scores.setdefault(entity, []).append(float(score))
            shown = {int(entity): round(float(score), 3) for entity, score in result.scores.items()}
            events = [[event.kind, int(event.id)] for event in result.events]
            runs = base64.b64encode(pack_maps([Runs.of(result.ids)])).decode()
            news = {"frame": result.index, "time": time, "runs": runs, "entities": shown, "events": events}
            if with_frames:
                news["jpeg"] = base64.b64encode(encode_jpeg(result.frame)).decode()
            tell(news)
        if output is None:
            raise ValueError("no frame was finished")
        output.finish({entity: float(np.mean(values)) for entity, values in scores.items()})
        return output.count


def _open_segmenter(job: dict[str, Any]) -> Any:
    from entitysam.engine.build import open_model
    from entitysam.inference.segmenter import VideoSegmenter

    opened = open_model(job["model"], job["weights"], device=job["device"], kind="entity_sam")
    return VideoSegmenter(opened.model)


def _check_size(source: Any, limits: dict[str, int]) -> None:
    if source.width * source.height > limits["pixels"]:
        raise ValueError(f"the frames are {source.width}x{source.height}, which is larger than this server takes")


class _LiveFrames:
    """Frames from standard input; all have the size of the first one.

    Attributes:
        width, height: of the first frame.
        times: seconds of each frame from the first.
    """

    fps = None
    width = height = 0

    def __init__(self, max_pixels: int, max_frames: int):
        self._max_pixels, self._max_frames = max_pixels, max_frames
        self.times: list[float] = []

    def time(self, index: int) -> float:
        return self.times[index]

    def __iter__(self) -> Iterator[np.ndarray]:
        from PIL import Image

        Image.MAX_IMAGE_PIXELS = self._max_pixels
        started = None
        while len(self.times) < self._max_frames:
            size = sys.stdin.buffer.read(4)
            if len(size) < 4:
                return
            data = sys.stdin.buffer.read(int.from_bytes(size, "little"))
            with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
                self.width, self.height = (self.width, self.height) if self.times else image.size
                if image.width * image.height > self._max_pixels:
                    raise ValueError("the frames are larger than this server takes")
                frame = np.asarray(image.convert("RGB").resize((self.width, self.height)))
            now = time.monotonic()
            started = now if started is None else started
            self.times.append(now - started)
            yield frame


def _write_online(segmenter: Any, source: Any, out: Path, title: str, stop: _Stop) -> int:
    """Every frame is written when it is segmented."""
    scores: dict[int, list[float]] = {}
    with _Output(out, title, source) as output:
        for result in segmenter.stream(source):
            time = source.time(result.index)
            output.add(source.name(result.index), result.frame, result.ids, result.scores, time)
            for entity, score in result.scores.items():
                scores.setdefault(entity, []).append(float(score))
            if stop.requested:
                break
        output.finish({entity: float(np.mean(values)) for entity, values in scores.items()})
        return output.count


def _write_offline(segmenter: Any, source: Any, out: Path, title: str, stop: _Stop) -> int:
    """The published protocol, over the frames that are read before it is stopped."""
    done = 0

    def until_stopped(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        nonlocal done
        for frame in frames:
            yield frame
            done += 1
            tell({"done": done})
            if stop.requested:
                return

    found = segmenter.segment(until_stopped(source), (source.height, source.width))
    with _Output(out, title, source, count_steps=False) as output:
        for index, (frame, ids) in enumerate(zip(source, found.iter_ids())):
            scores = dict(enumerate(found.frame_scores[:, index].tolist(), start=1))
            output.add(source.name(index), frame, ids, scores, source.time(index))
        output.finish(dict(enumerate(found.scores.tolist(), start=1)))
        return output.count


class _Output:
    """The result folder and `clip.mp4` in it."""

    def __init__(self, out: Path, title: str, source: Any, count_steps: bool = True):
        from entitysam.io.result_folder import CLIP, origin_of
        from entitysam.io.writers.segments import ResultWriter
        from entitysam.io.writers.video import VideoWriter

        size = source.width, source.height
        origin = origin_of(str(out / CLIP), 1, None)
        self._writer = ResultWriter(out, title, *size, source.fps, origin, other_files=[CLIP])
        self._clip = VideoWriter(out / CLIP, *size, source.fps)
        self._tells = count_steps
        self.count = 0

    def add(self, name: str, frame: np.ndarray, ids: np.ndarray, scores: dict[int, float], time: float | None) -> None:
        self._clip.add(frame, time)
        self._writer.add(name, frame, ids, scores, time)
        self.count += 1
        if self._tells:
            tell({"done": self.count})

    def finish(self, scores: dict[int, float]) -> None:
        if not self.count:
            raise ValueError("no frame was finished")
        self._clip.close()
        self._writer.finish(scores)

    def __enter__(self) -> "_Output":
        self._writer.__enter__()
        self._clip.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._clip.discard()
        self._writer.__exit__(*error)


if __name__ == "__main__":
    sys.exit(main())
