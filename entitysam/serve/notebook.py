"""The player in a notebook: `entitysam.view(segments, frames)`."""

import atexit
import html
import secrets
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from entitysam.io.readers.source import InputError, open_frames
from entitysam.io.result_folder import CLIP, origin_of
from entitysam.io.writers.segments import ResultWriter
from entitysam.io.writers.video import VideoWriter
from entitysam.serve.app import Settings
from entitysam.serve.opened import OpenedResult
from entitysam.serve.server import BackgroundServer
from entitysam.serve.workspace import Workspace
from entitysam.structures import VideoSegments

_running: list[BackgroundServer] = []  # one server for all players of a process


class Player:
    """A result in the page of `entitysam serve`; notebooks show it as the value of a cell.

    Attributes:
        url: of the page.
        opened: the result with the edits that are made in the page.
    """

    def __init__(self, server: BackgroundServer, key: str, opened: OpenedResult, height: int):
        self.opened = opened
        self.url = f"{server.url}&result={key}"
        self._height = height

    @property
    def ids(self) -> np.ndarray:
        """The maps as they are edited now, int32 [T, H, W]."""
        state = self.opened.snapshot()
        return np.stack([state.ids(frame) for frame in range(self.opened.num_frames)])

    def _repr_html_(self) -> str:
        return (f'<iframe src="{html.escape(self.url)}" width="100%" height="{self._height}" '
                'style="border: 1px solid #8888; border-radius: 6px" title="entitysam"></iframe>')  # fmt: skip


def view(
    segments: VideoSegments | str | Path,
    frames: Any = None,
    *,
    folder: str | Path | None = None,
    fps: float | None = None,
    height: int = 720,
) -> Player:
    """Shows a segmented video in a notebook, to look at and to correct.

    Args:
        segments: what `segment_video` returns, or a result folder.
        frames: the video: what `open_frames` takes. None = maps alone; for a folder, the input that it names.
        folder: where the result and the edits are kept; None = a temporary folder that ends with the process.
        fps: frames per second where the frames have none.
        height: of the player in pixels.

    Raises:
        InputError: no result in the folder; fewer frames than maps.
    """
    if isinstance(segments, VideoSegments):
        place = Path(folder or tempfile.mkdtemp(prefix="entitysam-"))
        _write(segments, frames, place, fps)
        opened = OpenedResult(place)
    else:
        opened = OpenedResult(Path(segments), None if frames is None else {"source": frames})
    server = _server()
    entry = server.workspace.add(opened.saved.video_id, opened)
    return Player(server, entry.key, opened, height)


def _write(segments: VideoSegments, frames: Any, folder: Path, fps: float | None) -> None:
    """A result folder of maps in memory."""
    count, height, width = segments.ids.shape
    pictures: Iterable[np.ndarray] = (np.zeros((height, width, 3), np.uint8) for _ in range(count))
    source = None if frames is None else open_frames(frames, max_frames=count)
    origin = None if source is None else origin_of(str(folder / CLIP), 1, None)
    rate = fps or (source.fps if source is not None else None)
    scores = dict(enumerate(segments.scores.tolist(), start=1))
    files = [] if source is None else [CLIP]
    with ResultWriter(folder, folder.name, width, height, rate, origin, other_files=files) as writer:
        clip = None if source is None else VideoWriter(folder / CLIP, width, height, rate)
        remaining = iter(pictures if source is None else source)
        for index, ids in enumerate(segments.ids):
            picture = next(remaining, None)
            if picture is None:
                raise InputError(f"there are {count} maps, but the input has only {index} frames")
            time = index / rate if rate else None
            if clip is not None:
                clip.add(picture, time)
            writer.add(f"{index:05d}", picture, ids, dict(enumerate(segments.frame_scores[:, index].tolist(), 1)), time)
        if clip is not None:
            clip.close()
        writer.finish(scores)
    if source is not None:
        source.close()


def _server() -> BackgroundServer:
    if not _running:
        settings = Settings(token=secrets.token_urlsafe(24), embedded=True)
        _running.append(BackgroundServer(Workspace(), settings))
        atexit.register(_running[0].close)
    return _running[0]
