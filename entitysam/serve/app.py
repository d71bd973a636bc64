"""Builds the server: routes, static files, errors, and the guard in front of them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from entitysam.edits.journal import JournalError
from entitysam.edits.operations import EditError
from entitysam.io.files import OutputError
from entitysam.io.readers.base import InputError
from entitysam.serve.jobs import BusyError, JobQueue
from entitysam.serve.live import LiveSessions
from entitysam.serve.opened import StaleError
from entitysam.serve.routes import edits, events, jobs, live, results
from entitysam.serve.security import Guard
from entitysam.serve.segmenting import Studio, UploadError, identity_of
from entitysam.serve.sources import Sources
from entitysam.serve.workspace import NotFoundError, Workspace

TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
         ".svg": "image/svg+xml"}  # fmt: skip
STATUS = {NotFoundError: 404, StaleError: 409, EditError: 422, InputError: 422, JournalError: 422, UploadError: 422,
          BusyError: 429, OutputError: 507}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """How a server is reached.

    Attributes:
        hosts: names that the `Host` header may have; None = any.
        token: that requests must carry; "" = none.
        embedded: the page may be shown inside a notebook.
    """

    hosts: frozenset[str] | None = frozenset({"127.0.0.1", "localhost", "::1"})
    token: str = ""
    embedded: bool = False


def build_app(
    workspace: Workspace,
    settings: Settings | None = None,
    studio: Studio | None = None,
    sources: Sources | None = None,
) -> Guard:
    """The ASGI application.

    Args:
        workspace: the results that it shows.
        settings: how it is reached.
        studio: where uploads are segmented; None = none are taken.
        sources: videos and streams that are offered. The files that are given one by one are segmented at once, for every
            tab; those that an earlier run of the server has segmented are open already.
    """
    settings, offered = settings or Settings(), sources or Sources()
    if studio is None and (offered.given or offered.folder is not None):
        raise InputError("videos and streams cannot be opened by a server that segments nothing")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with TemporaryDirectory(prefix="entitysam-") as exports:
            app.state.exports = Path(exports)
            if studio is not None:
                for source in offered.given:
                    if not source.is_live and not studio.knows(identity_of(Path(source.address))):
                        jobs.start_segmenting(app.state, source, None)
            yield
            queue.close()
            if studio is not None:
                studio.close()
            workspace.close()

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    queue = JobQueue(workspace)
    app.state.workspace, app.state.studio, app.state.jobs, app.state.reviews = workspace, studio, queue, {}
    app.state.sources = offered
    app.state.live = None if studio is None else LiveSessions(studio, workspace)
    for module in (results, edits, jobs, live, events):
        app.include_router(module.router, prefix="/api")
    app.include_router(jobs.downloads)
    _add_static(app)
    for kind, status in STATUS.items():
        app.add_exception_handler(kind, _answer_with(status))
    app.add_exception_handler(RequestValidationError, _bad_request)
    app.add_exception_handler(HTTPException, _http_error)
    hosts = None if settings.hosts is None else set(settings.hosts)
    return Guard(app, hosts, settings.token, settings.embedded)


def _add_static(app: FastAPI) -> None:
    """Every file of `static/` under its name; nothing is looked up by a name from a request."""
    for item in files("entitysam.serve").joinpath("static").iterdir():
        suffix = item.name[item.name.rfind(".") :]
        if suffix in TYPES:
            path = "/" if item.name == "index.html" else f"/static/{item.name}"
            app.add_api_route(path, _sender(item.read_bytes(), TYPES[suffix]), methods=["GET"])


def _sender(content: bytes, media_type: str) -> Any:
    def send() -> Response:
        return Response(content, media_type=media_type)

    return send


def _answer_with(status: int) -> Any:
    def handler(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": " ".join(str(error).split())}, status)

    return handler


def _bad_request(request: Request, error: Exception) -> JSONResponse:
    first = error.errors()[0] if isinstance(error, RequestValidationError) else {}
    place = ".".join(str(part) for part in first.get("loc", ()))
    return JSONResponse({"error": f"{place}: {first.get('msg', 'not a request that is understood')}"}, 422)


def _http_error(request: Request, error: Exception) -> JSONResponse:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return JSONResponse({"error": "there is nothing here" if status == 404 else "not allowed"}, status)
