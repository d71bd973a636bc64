"""Correcting: edits, undo and redo. Every answer is the new state."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Request

from entitysam.edits.operations import EditError, Masks, read_edit
from entitysam.serve.routes import result_of

router = APIRouter(prefix="/results/{key}")
Revision = Annotated[int, Body(ge=0, embed=True)]


@router.post("/edits")
def edit(request: Request, key: str, revision: Revision, edit: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
    result = result_of(request, key)
    change = read_edit(edit)
    if isinstance(change, Masks):
        raise EditError("masks come only from the segmenter")
    result.edit(change, revision)
    return _changed(request, key)


@router.post("/undo")
def undo(request: Request, key: str, revision: Revision) -> dict[str, Any]:
    result_of(request, key).undo(revision)
    return _changed(request, key)


@router.post("/redo")
def redo(request: Request, key: str, revision: Revision) -> dict[str, Any]:
    result_of(request, key).redo(revision)
    return _changed(request, key)


def _changed(request: Request, key: str) -> dict[str, Any]:
    request.app.state.workspace.announce()
    return result_of(request, key).state()
