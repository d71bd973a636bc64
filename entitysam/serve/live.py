"""A camera of a browser: frames come one by one, each is answered with its map; at the end there is a result."""

import json
import secrets
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from entitysam.serve.jobs import BusyError
from entitysam.serve.opened import OpenedResult, hex_colour
from entitysam.serve.segmenting import Studio, UploadError
from entitysam.serve.workspace import NotFoundError, Workspace

MAX_SESSIONS = 2
IDLE = 30.0  # seconds without a frame until a session ends by itself
MAX_FRAME = 4 * 2**20  # bytes of a JPEG


class LiveSession:
    """One camera and its worker.

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
            entities = [{"id": int(entity), "name": "", "colour": hex_colour(int(entity)), "score": score}
                        for entity, score in answer["entities"].items()]  # fmt: skip
            return {**answer, "entities": entities}

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


@dataclass
class LiveSessions:
    """The cameras of all tabs; sessions without frames end by themselves."""

    studio: Studio
    workspace: Workspace
    _sessions: dict[str, LiveSession] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, owner: str) -> LiveSession:
        """
        Raises:
            BusyError: too many sessions, or this tab has one.
            OutputError: the disk is full.
        """
        with self._lock:
            if len(self._sessions) >= MAX_SESSIONS or any(one.owner == owner for one in self._sessions.values()):
                raise BusyError("a camera is running already")
            place = self.studio.new_place("camera.mp4", owner).parent
            session = LiveSession(self.studio, place, "camera", owner)
            self._sessions[session.key] = session
        threading.Thread(target=self._end_when_idle, args=(session,), daemon=True).start()
        return session

    def session(self, key: str, owner: str) -> LiveSession:
        """
        Raises:
            NotFoundError: there is none, or it is another tab's.
        """
        session = self._sessions.get(key)
        if session is None or session.owner != owner:
            raise NotFoundError("the camera is not running")
        return session

    def finish(self, session: LiveSession) -> dict[str, Any]:
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

    def _end_when_idle(self, session: LiveSession) -> None:
        while session.key in self._sessions:
            time.sleep(1.0)
            if time.monotonic() - session.last > IDLE and not session._lock.locked():
                with suppress(NotFoundError, ValueError, OSError):
                    self.finish(session)
