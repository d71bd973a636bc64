"""Work that takes longer: uploads to segment, exports, the review list; progress, cancel, download."""

import secrets
import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Header, Query, Request
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse

from entitysam.edits.operations import Coordinate, EditError, EntityId, Frame
from entitysam.edits.review import Finding, find_instabilities
from entitysam.exchange import FORMATS
from entitysam.io.files import OutputError, output_errors
from entitysam.io.readers.base import InputError
from entitysam.serve.exporting import export, file_name
from entitysam.serve.jobs import Job
from entitysam.serve.opened import OpenedResult
from entitysam.serve.routes import result_of
from entitysam.serve.security import tab_of
from entitysam.serve.segmenting import UploadError, identity_of
from entitysam.serve.sources import Source

router = APIRouter()
downloads = APIRouter()
MIB = 2**20
CORRECTIONS_MIB = 512  # of an XML
SHOWN = 100  # entries of the review list


@router.get("/jobs")
def list_jobs(request: Request) -> list[dict[str, Any]]:
    return [job.describe() for job in request.app.state.jobs.of(tab_of(request))]


@router.post("/jobs/{key}/cancel")
def cancel(request: Request, key: str) -> dict[str, Any]:
    return request.app.state.jobs.cancel(key, tab_of(request)).describe()


# -- uploads


@router.post("/uploads")
async def upload(
    request: Request,
    name: Annotated[str, Query(min_length=1, max_length=500)],
    online: bool = True,
    max_frames: Annotated[int | None, Query(ge=1, le=10**7)] = None,
    content_length: Annotated[int | None, Header()] = None,
) -> dict[str, Any]:
    """Takes the body of the request as a file, and segments it.

    Raises:
        UploadError: too large, or of a type that is not taken.
        OutputError: the disk is full.
    """
    studio, tab = request.app.state.studio, tab_of(request)
    if studio is None:
        raise UploadError("this server takes no uploads")
    path = studio.new_place(name, tab)
    try:
        await _receive(request, path, studio.limits.upload_mib, content_length)
        work = partial(_segment, request.app.state, path, online, max_frames)
        job = request.app.state.jobs.add(Job("segment", tab, studio.title_of(path.parent), work))
    except BaseException:
        studio.discard(path.parent)
        raise
    return job.describe()


async def _receive(request: Request, path: Path, max_mib: int, announced: int | None) -> None:
    """Writes the body of a request to a new file."""
    too_large = UploadError(f"the file is larger than {max_mib} MiB, which is what this server takes")
    if announced is not None and announced > max_mib * MIB:
        raise too_large
    received = 0
    with output_errors("the upload"), path.open("xb") as file:
        async for block in request.stream():
            received += len(block)
            if received > max_mib * MIB:
                raise too_large
            await run_in_threadpool(file.write, block)
    if not received:
        raise UploadError("the file is empty")


def _segment(state: Any, path: Path, online: bool, max_frames: int | None, job: Job) -> None:
    try:
        state.studio.segment(job, path.parent, str(path), state.workspace, online, max_frames)
    finally:
        path.unlink(missing_ok=True)


# -- videos and streams of this machine


@router.get("/sources")
def list_sources(request: Request) -> list[dict[str, Any]]:
    """What the person who has started the server offers."""
    return [{"name": source.name, "live": source.is_live} for source in request.app.state.sources]


@router.post("/sources")
def segment_source(
    request: Request,
    name: Annotated[str, Body(max_length=4000)],
    online: Annotated[bool, Body()] = True,
    max_frames: Annotated[int | None, Body(ge=1, le=10**7)] = None,
) -> dict[str, Any]:
    """Segments a file that `list_sources` names."""
    state, tab = request.app.state, tab_of(request)
    source = state.sources.find(name, is_live=False)
    return start_segmenting(state, source, tab, online, max_frames).describe()


def start_segmenting(
    state: Any, source: Source, owner: str | None, online: bool = True, max_frames: int | None = None
) -> Job:
    """Starts a job over a file of this machine; a result for `owner`, None = every tab."""
    studio, path = state.studio, Path(source.address)
    try:
        place = studio.new_folder(source.name, owner, identity_of(path))
    except FileNotFoundError:
        raise InputError(f"{source.name}: is not there any more") from None
    title = studio.title_of(place)
    try:
        return state.jobs.add(
            Job("segment", owner, title,
                lambda job: studio.segment(job, place, str(path), state.workspace, online, max_frames))
        )  # fmt: skip
    except BaseException:
        studio.discard(place)
        raise


@router.post("/results/{key}/corrections")
async def correct(request: Request, key: str, content_length: Annotated[int | None, Header()] = None) -> dict[str, Any]:
    """Takes the body of the request as an XML of CVAT, and makes the edits that it stands for.

    Raises:
        UploadError: too large.
        OutputError: the disk is full.
    """
    opened, tab, studio = result_of(request, key), tab_of(request), request.app.state.studio
    if studio is None:
        raise UploadError("this server takes no uploads")
    opened.check_masks()
    path = request.app.state.exports / f"{secrets.token_hex(8)}.xml"
    try:
        await _receive(request, path, min(studio.limits.upload_mib, CORRECTIONS_MIB), content_length)
        title = f"{opened.saved.video_id}: corrections of CVAT"
        job = Job("correct", tab, title, lambda job: studio.correct(job, opened, path, "cvat"))
        job.result = key
        return request.app.state.jobs.add(job).describe()
    except BaseException:
        path.unlink(missing_ok=True)
        raise


# -- exports


@router.get("/formats")
def formats() -> list[dict[str, str]]:
    """Formats of other programs that a result can be written in."""
    return [{"kind": name, "title": kind.title, "loses": kind.loses} for name, kind in FORMATS.items()]


@router.post("/results/{key}/exports")
def start_export(request: Request, key: str, kind: Annotated[str, Body(embed=True, max_length=40)]) -> dict[str, Any]:
    opened, tab = result_of(request, key), tab_of(request)
    folder = request.app.state.exports
    job = Job("export", tab, f"{opened.saved.video_id}: {file_name(kind)}", partial(_export, opened, kind, folder))
    job.result, job.total = key, opened.num_frames
    return request.app.state.jobs.add(job).describe()


def _export(opened: OpenedResult, kind: str, folder: Path, job: Job) -> None:
    try:
        place = Path(tempfile.mkdtemp(dir=folder))
    except OSError as error:
        raise OutputError(f"the export cannot be written ({error.strerror or error})") from error
    job.file = export(opened.snapshot(), kind, place, job.step)


@downloads.get("/download/{ticket}")
def download(request: Request, ticket: str) -> FileResponse:
    """A finished export; its random ticket is what allows it, since a link carries no headers."""
    path = request.app.state.jobs.ticket(ticket)
    return FileResponse(path, filename=path.name, media_type="application/octet-stream")


# -- prompts


class Prompt(BaseModel):
    """Clicks and a box on a frame, (x, y) in its pixels.

    Attributes:
        id: entity that gets the masks; a new one where there is none of this id.
        labels: 1 inside, 0 outside, one per point.
        direction: "forward", "backward", or "here" for this frame alone.
    """

    id: EntityId
    frame: Frame
    points: Annotated[list[tuple[Coordinate, Coordinate]], Field(max_length=100)] = []
    labels: list[Literal[0, 1]] = []
    box: tuple[Coordinate, Coordinate, Coordinate, Coordinate] | None = None
    direction: Literal["forward", "backward", "here"]


@router.post("/results/{key}/follow")
def follow(request: Request, key: str, prompt: Prompt) -> dict[str, Any]:
    """Follows what is clicked, by SAM 2.1; the masks become one edit."""
    opened, tab, studio = result_of(request, key), tab_of(request), request.app.state.studio
    if studio is None or studio.prompter is None:
        raise UploadError("clicks and boxes need SAM 2.1: start the server with --prompter sam2.1_hiera_small.pt")
    if len(prompt.labels) != len(prompt.points) or not (prompt.points or prompt.box):
        raise UploadError("a prompt needs clicks or a box, and one label per click")
    opened.check_masks()
    if prompt.frame >= opened.num_frames:
        raise UploadError(f"there is no frame {prompt.frame}")
    if prompt.id in opened.table.locked():
        raise EditError(f"entity {prompt.id} is locked")
    plain = prompt.model_dump(exclude={"id"})
    job = Job("follow", tab, f"entity {prompt.id}", lambda job: studio.follow(job, opened, prompt.id, plain))
    job.result = key
    return request.app.state.jobs.add(job).describe()


@router.get("/abilities")
def abilities(request: Request) -> dict[str, bool]:
    """What this server can do."""
    studio = request.app.state.studio
    return {"uploads": studio is not None, "prompts": studio is not None and studio.prompter is not None}


# -- review


@router.get("/results/{key}/review")
def review(request: Request, key: str) -> dict[str, Any]:
    """The review list of the current edits; `job` while it is made."""
    opened, tab, state = result_of(request, key), tab_of(request), request.app.state
    known = state.reviews.get(key)
    if known is not None and known[0] == opened.revision:
        return {"revision": known[0], "job": None, "findings": known[1]}
    running = [job for job in state.jobs.of(tab) if job.kind == "review" and job.result == key]
    active = [job for job in running if job.state in ("waiting", "running")]
    if active:
        job = active[-1]
    else:
        job = Job("review", tab, "review", partial(_review, opened, key, state.reviews))
        job.result, job.total = key, opened.num_frames
        state.jobs.add(job)
    older = known[1] if known is not None else []
    return {"revision": known[0] if known else -1, "job": job.describe(), "findings": older}


def _review(opened: OpenedResult, key: str, reviews: dict[str, Any], job: Job) -> None:
    now = opened.snapshot()
    scores = {entity: now.table.rows[entity].scores for entity in now.table.visible}
    numbers = range(opened.num_frames)
    frames = None
    try:
        opened.frame(0)
        frames = (opened.frame(index) for index in numbers)
    except InputError:  # the maps alone say less
        pass
    findings = find_instabilities((now.ids(index) for index in numbers), frames, scores, job.step)
    reviews[key] = now.revision, [_plain(finding) for finding in findings[:SHOWN]]


def _plain(finding: Finding) -> dict[str, Any]:
    return {"frame": finding.frame, "kind": finding.kind, "ids": finding.ids, "text": finding.text,
            "strength": round(finding.strength, 3)}  # fmt: skip
