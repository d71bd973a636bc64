"""Live inputs: start, one request per frame, stop."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request
from starlette.concurrency import run_in_threadpool

from entitysam.serve.live import MAX_FRAME, LiveSession, LiveSessions, StreamSession
from entitysam.serve.security import tab_of
from entitysam.serve.segmenting import UploadError

router = APIRouter(prefix="/live")


def _sessions(request: Request) -> LiveSessions:
    sessions = request.app.state.live
    if sessions is None:
        raise UploadError("this server takes no camera")
    return sessions


@router.post("")
def start(request: Request, source: Annotated[str | None, Body(embed=True, max_length=4000)] = None) -> dict[str, str]:
    """Starts a stream that `list_sources` names; without one the camera of the browser."""
    chosen = None if source is None else request.app.state.sources.find(source, is_live=True)
    return {"key": _sessions(request).start(tab_of(request), chosen).key}


@router.post("/{key}/frames")
async def push(request: Request, key: str) -> dict[str, Any]:
    """Segments the JPEG in the body."""
    session = _sessions(request).session(key, tab_of(request))
    if not isinstance(session, LiveSession):
        raise UploadError("a stream takes no frames")
    data = bytearray()
    async for block in request.stream():
        data += block
        if len(data) > MAX_FRAME:
            raise UploadError("the frame is too large")
    if not data.startswith(b"\xff\xd8"):
        raise UploadError("the frame is no JPEG")
    return await run_in_threadpool(session.push, bytes(data))


@router.get("/{key}/newest")
def newest(request: Request, key: str, after: Annotated[int, Query(ge=-1, lt=2**31)] = -1) -> dict[str, Any]:
    """The newest frame of a stream behind frame `after`."""
    session = _sessions(request).session(key, tab_of(request))
    if not isinstance(session, StreamSession):
        raise UploadError("the page itself has the frames of its camera")
    return session.newest(after)


@router.post("/{key}/stop")
def stop(request: Request, key: str) -> dict[str, Any]:
    sessions = _sessions(request)
    return sessions.finish(sessions.session(key, tab_of(request)))
