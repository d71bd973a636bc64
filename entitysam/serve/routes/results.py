"""Looking: the list of results, and state, lanes, maps and frames of one."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from entitysam.serve.routes import result_of
from entitysam.serve.security import tab_of

router = APIRouter(prefix="/results")
Start = Annotated[int, Query(ge=0, lt=2**31)]
Count = Annotated[int, Query(ge=1, le=64)]


@router.get("")
def list_results(request: Request) -> list[dict[str, Any]]:
    entries = request.app.state.workspace.visible(tab_of(request))
    return [
        {"key": e.key, "title": e.title, "own": e.owner is not None, "ready": e.result is not None} for e in entries
    ]


@router.post("/{key}/close")
def close(request: Request, key: str) -> dict[str, Any]:
    """Takes a result of this tab out of the list; its files stay."""
    workspace = request.app.state.workspace
    if workspace.entry(key, tab_of(request)).owner == tab_of(request):
        workspace.remove(key)
    return {}


@router.get("/{key}")
def describe(request: Request, key: str) -> dict[str, Any]:
    result = result_of(request, key)
    return {"key": key, **result.describe(), "state": result.state()}


@router.get("/{key}/state")
def state(request: Request, key: str) -> dict[str, Any]:
    return result_of(request, key).state()


@router.get("/{key}/lanes")
def lanes(request: Request, key: str) -> Response:
    return _packed(result_of(request, key).lanes())


@router.get("/{key}/maps")
def maps(request: Request, key: str, start: Start, count: Count) -> Response:
    return _packed(result_of(request, key).packed_maps(start, count))


@router.get("/{key}/frames")
def frames(request: Request, key: str, start: Start, count: Count) -> Response:
    return Response(result_of(request, key).packed_frames(start, count), media_type="application/octet-stream")


@router.post("/{key}/share")
def share(request: Request, key: str) -> dict[str, str]:
    return {"link": request.app.state.workspace.share(key, tab_of(request))}


@router.post("/follow/{link}")
def follow(request: Request, link: str) -> dict[str, str]:
    return {"key": request.app.state.workspace.follow(link, tab_of(request)).key}


def _packed(data: bytes) -> Response:
    return Response(data, media_type="application/octet-stream", headers={"content-encoding": "gzip"})
