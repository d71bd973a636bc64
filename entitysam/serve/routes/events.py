"""What has changed since a tab asked last: it asks again and again, and each answer waits for a change."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from entitysam.serve.security import tab_of

router = APIRouter()
STEP, WAIT = 0.1, 20.0  # seconds


@router.get("/events")
async def events(request: Request, version: Annotated[int, Query(ge=-1)] = -1) -> dict[str, Any]:
    """Answers when the version is another one, at the latest after `WAIT`: revisions of the results that the tab sees."""
    workspace = request.app.state.workspace
    for _ in range(int(WAIT / STEP)):
        if workspace.version != version or workspace.closing or await request.is_disconnected():
            break
        await asyncio.sleep(STEP)
    now = workspace.version
    entries = workspace.visible(tab_of(request))
    revisions = {entry.key: entry.result.revision for entry in entries if entry.result is not None}
    return {"version": now, "revisions": revisions}
