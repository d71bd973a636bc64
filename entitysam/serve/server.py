"""Runs the server: in the foreground for the command, in a thread for notebooks and tests."""

import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import uvicorn

from entitysam.io.readers.base import InputError
from entitysam.serve.app import Settings, build_app
from entitysam.serve.security import is_loopback
from entitysam.serve.segmenting import Studio
from entitysam.serve.sources import Sources
from entitysam.serve.workspace import Workspace


def serve(
    inputs: Sequence[Path],
    source: str | None,
    host: str,
    port: int,
    token: str | None,
    studio: Studio | None,
    sources: Sources,
    announce: Callable[[str], None],
) -> int:
    """Opens results and serves until Ctrl-C.

    Args:
        inputs: result folders.
        source: the frames of the only result; None = those that it names.
        host, port: where to listen.
        token: that requests must carry; None = none on this machine, else a random one.
        studio: where uploads are segmented; None = none are taken.
        sources: videos and streams that the page offers.
        announce: is called with the address of the page once it can be opened.

    Raises:
        InputError: a folder without a result; the port is taken.
    """
    settings = _settings(host, token)
    with _listen(host, port) as listener:
        workspace = Workspace()
        for folder in inputs:
            workspace.open_folder(folder, None if source is None else _source(folder, source))
        if studio is not None:
            studio.reopen(workspace)
        with suppress(KeyboardInterrupt):  # is how it ends
            announce(address(listener, settings))
            _Server(workspace, build_app(workspace, settings, studio, sources)).run(sockets=[listener])
    return 0


class _Server(uvicorn.Server):
    def __init__(self, workspace: Workspace, app: Any):
        super().__init__(_config(app))
        self._workspace = workspace

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._workspace.closing = True  # requests that wait for news are answered now
        await super().shutdown(sockets)


class BackgroundServer:
    """A server in a thread of this process; also a context manager.

    Args:
        workspace: what it shows.
        settings: see `Settings`.
        studio: where uploads are segmented; None = none are taken.
        sources: videos and streams that the page offers.
        port: 0 = any that is free.

    Attributes:
        url: of the page, with the token.
    """

    def __init__(
        self,
        workspace: Workspace,
        settings: Settings | None = None,
        studio: Studio | None = None,
        sources: Sources | None = None,
        port: int = 0,
    ):
        settings = settings or Settings()
        self.workspace = workspace
        self._server = _Server(workspace, build_app(workspace, settings, studio, sources))
        self._listener = _listen("127.0.0.1", port)
        self.url = address(self._listener, settings)
        self._thread = threading.Thread(target=self._server.run, args=([self._listener],), daemon=True)
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.01)

    def close(self) -> None:
        """Stops the server and closes its results."""
        self._server.should_exit = True
        self._thread.join(10)
        self._listener.close()

    def __enter__(self) -> "BackgroundServer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _settings(host: str, token: str | None) -> Settings:
    if is_loopback(host):
        return Settings(token=token or "")
    token = token or secrets.token_urlsafe(24)
    if len(token) < 16:
        raise InputError("the token needs at least 16 characters where other machines reach the server")
    return Settings(hosts=None, token=token)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{host}:{port}: cannot be listened on ({reason}); --port 0 takes any free port") from error
    return listener


def _config(app: Any) -> uvicorn.Config:
    return uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, date_header=False,
                          timeout_graceful_shutdown=1, limit_concurrency=64, h11_max_incomplete_event_size=32_768,
                          ws="none", lifespan="on")  # fmt: skip


def address(listener: socket.socket, settings: Settings) -> str:
    """Of the page; the token is behind "#", which browsers do not send."""
    host, port = listener.getsockname()[:2]
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{port}/" + (f"#token={settings.token}" if settings.token else "")


def _source(folder: Path, source: str) -> dict[str, Any]:
    """Of an input that the user types; stride and length are those of the result."""
    from entitysam.engine.labelling.saved_result import SavedResult

    return {**(SavedResult.read(folder, boxes=True).source or {}), "source": source}
