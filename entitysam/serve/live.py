"""Live inputs; at the end of each there is a result.

The camera of a browser sends frames one by one, each is answered with its map. A stream or camera of this machine is read by the
worker; the page asks for the newest frame.
"""

import json
import secrets
import subprocess
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from entitysam.serve.jobs import BusyError
from entitysam.serve.opened import OpenedResult, hex_colour
from entitysam.serve.segmenting import PATIENCE, Studio, UploadError
from entitysam.serve.sources import Source
from entitysam.serve.workspace import NotFoundError, Workspace

MAX_SESSIONS = 2
IDLE = 30.0  # seconds without a frame until a session ends by itself
MAX_FRAME = 4 * 2**20  # bytes of a JPEG
KEPT_EVENTS = 1000  # of a stream, for a page that asks late
ANSWER = 10.0  # seconds that a request for the newest frame waits


class LiveSession:
    """One camera of a browser and its worker.

    Args:
        studio: whose worker runs.
        place: folder of the result.
        owner: the tab.
    """

    def __init__(self, studio: Studio, place: Path, title: str, owner: str):
        self.key, self.owner, self.place, self.title = secrets.token_hex(8), owner, place, title
        self.last = time.monotonic()
        self._studio = studio
        self._lock = threading.Lock()
        order = studio.order(place, title, studio.limits.max_frames)
        self._process = studio.start({**order, "kind": "live"})

    @property
    def is_busy(self) -> bool:
        return self._lock.locked()

    def push(self, jpeg: bytes) -> dict[str, Any]:
        """Segments a frame; returns its number, map, entities and events.

        Raises:
            UploadError: what the worker says.
        """
        with self._lock:
            self.last = time.monotonic()
            stdin = self._process.stdin
            assert stdin is not None
            try:
                stdin.write(len(jpeg).to_bytes(4, "little") + jpeg)
                stdin.flush()
            except (BrokenPipeError, ValueError):
                pass  # it has said why
            answer = self._read("frame")
            self.last = time.monotonic()
            return {**answer, "entities": _described(answer["entities"])}

    def finish(self) -> int:
        """Ends the session; returns the number of frames of the result.

        Raises:
            UploadError: there is no result; the message says why.
        """
        with self._lock:
            stdin = self._process.stdin
            assert stdin is not None
            with suppress(BrokenPipeError):
                stdin.close()
            try:
                return int(self._read("finished")["finished"])
            finally:
                self._process.wait()
                self._studio.ended(self._process)

    def _read(self, wanted: str) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            news = json.loads(line)
            if "error" in news:
                raise UploadError(news["error"])
            if wanted in news:
                return news
        raise UploadError("the process that segments the camera ended early")


class StreamSession:
    """One stream, or camera of this machine, and its worker.

    Args:
        studio: whose worker runs.
        place: folder of the result.
        title: of the result.
        owner: the tab.
        source: what is opened.
    """

    is_busy = False

    def __init__(self, studio: Studio, place: Path, title: str, owner: str, source: Source):
        self.key, self.owner, self.place, self.title = secrets.token_hex(8), owner, place, title
        self.last = time.monotonic()
        self._studio = studio
        self._news = threading.Condition()
        self._newest: dict[str, Any] | None = None
        self._events: deque[tuple[int, float, str, int]] = deque(maxlen=KEPT_EVENTS)  # frame, time, kind, id
        self._finished, self._problem, self._has_ended = 0, "", False
        order = studio.order(place, title, studio.limits.max_frames)
        self._process = studio.start({**order, "kind": "stream", "input": source.address})
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            news = json.loads(line)
            with self._news:
                if "frame" in news:
                    self._newest = news
                    self._events += [(news["frame"], news["time"], kind, entity) for kind, entity in news["events"]]
                self._finished = news.get("finished", self._finished)
                self._problem = news.get("error", self._problem)
                self._news.notify_all()
        with self._news:
            self._has_ended = True
            self._news.notify_all()

    def newest(self, after: int) -> dict[str, Any]:
        """The newest frame behind frame `after`: as a camera's answer, and "jpeg", and the events behind that frame.

        Where none comes in time it has only "frame", which is `after`; at the end of the stream also "ended".
        """
        self.last = time.monotonic()
        with self._news:
            self._news.wait_for(lambda: self._has_ended or self._frame > after, ANSWER)
            if self._newest is None or self._frame <= after:
                return {"frame": after, "ended": self._has_ended}
            events = [[round(at, 3), kind, entity] for frame, at, kind, entity in self._events if frame > after]
            return {**self._newest, "entities": _described(self._newest["entities"]), "events": events}

    @property
    def _frame(self) -> int:
        return -1 if self._newest is None else int(self._newest["frame"])

    def finish(self) -> int:
        """Ends the session; returns the number of frames of the result.

        Raises:
            UploadError: there is no result; the message says why.
        """
        with suppress(OSError):
            self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
        with self._news:
            self._news.wait_for(lambda: self._has_ended, ANSWER)
        self._studio.ended(self._process)
        if self._problem or not self._finished:
            raise UploadError(self._problem or "the process that segments the stream ended early")
        return self._finished


def _described(entities: dict[str, float]) -> list[dict[str, Any]]:
    return [{"id": int(entity), "name": "", "colour": hex_colour(int(entity)), "score": score}
            for entity, score in entities.items()]  # fmt: skip


@dataclass
class LiveSessions:
    """The live inputs of all tabs; sessions that no page looks at end by themselves."""

    studio: Studio
    workspace: Workspace
    _sessions: dict[str, LiveSession | StreamSession] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, owner: str, source: Source | None = None) -> LiveSession | StreamSession:
        """Starts a stream; None = the camera of the browser.

        Raises:
            BusyError: too many sessions, or this tab has one.
            OutputError: the disk is full.
        """
        with self._lock:
            if len(self._sessions) >= MAX_SESSIONS or any(one.owner == owner for one in self._sessions.values()):
                raise BusyError("a camera or stream is running already")
            place = self.studio.new_folder("camera" if source is None else source.name, owner)
            title = self.studio.title_of(place)
            session: LiveSession | StreamSession
            if source is None:
                session = LiveSession(self.studio, place, title, owner)
            else:
                session = StreamSession(self.studio, place, title, owner, source)
            self._sessions[session.key] = session
        threading.Thread(target=self._end_when_idle, args=(session,), daemon=True).start()
        return session

    def session(self, key: str, owner: str) -> LiveSession | StreamSession:
        """
        Raises:
            NotFoundError: there is none, or it is another tab's.
        """
        session = self._sessions.get(key)
        if session is None or session.owner != owner:
            raise NotFoundError("the camera is not running")
        return session

    def finish(self, session: LiveSession | StreamSession) -> dict[str, Any]:
        """Ends a session and opens its result.

        Raises:
            NotFoundError: it has ended already.
            UploadError: there is no result.
        """
        with self._lock:
            if self._sessions.pop(session.key, None) is None:
                raise NotFoundError("the camera is not running")
        try:
            frames = session.finish()
            result = OpenedResult(session.place / "result")
        except ValueError:
            self.studio.discard(session.place)
            raise
        self.workspace.add(session.title, result, session.owner, key=session.place.name)
        return {"key": session.place.name, "frames": frames}

    def _end_when_idle(self, session: LiveSession | StreamSession) -> None:
        while session.key in self._sessions:
            time.sleep(1.0)
            if time.monotonic() - session.last > IDLE and not session.is_busy:
                with suppress(NotFoundError, ValueError, OSError):
                    self.finish(session)
