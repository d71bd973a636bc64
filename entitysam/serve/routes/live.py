"""The camera of the browser: start, one request per frame, stop."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from entitysam.serve.live import MAX_FRAME, LiveSessions
from entitysam.serve.security import tab_of
from entitysam.serve.segmenting import UploadError

router = APIRouter(prefix="/live")


def _sessions(request: Request) -> LiveSessions:
    sessions = request.app.state.live
    if sessions is None:
        raise UploadError("this server takes no camera")
    return sessions


@router.post("")
def start(request: Request) -> dict[str, str]:
    return {"key": _sessions(request).start(tab_of(request)).key}


@router.post("/{key}/frames")
async def push(request: Request, key: str) -> dict[str, Any]:
    """Segments the JPEG in the body."""
    session = _sessions(request).session(key, tab_of(request))
    data = bytearray()
    async for block in request.stream():
        data += block
        if len(data) > MAX_FRAME:
            raise UploadError("the frame is too large")
    if not data.startswith(b"\xff\xd8"):
        raise UploadError("the frame is no JPEG")
    return await run_in_threadpool(session.push, bytes(data))


@router.post("/{key}/stop")
def stop(request: Request, key: str) -> dict[str, Any]:
    sessions = _sessions(request)
    return sessions.finish(sessions.session(key, tab_of(request)))
