"""Requests of the page, one file per topic."""

from fastapi import Request

from entitysam.serve.opened import OpenedResult
from entitysam.serve.security import tab_of


def result_of(request: Request, key: str) -> OpenedResult:
    """The open result of a key, for the tab that asks."""
    return request.app.state.workspace.result(key, tab_of(request))
