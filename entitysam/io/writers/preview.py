"""Shows a running segmentation in a browser of the same machine, as motion JPEG over HTTP."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

import cv2
import numpy as np

from entitysam.io.files import OutputError

JPEG_QUALITY = 80
BOUNDARY = "frame"
PAGE = (
    "<!doctype html><title>entitysam</title><style>body{margin:0;background:#111}"
    "img{display:block;margin:auto;max-width:100%;height:100vh;object-fit:contain}</style><img src=/stream>"
)


class Preview:
    """A server on the loopback interface: "/" is a page with the stream "/stream".

    A browser that is slow gets fewer frames, and frames are drawn only while somebody watches.

    Args:
        port: 0 = any that is free.

    Attributes:
        url: of the page.

    Raises:
        OutputError: the port cannot be used.
    """

    def __init__(self, port: int) -> None:
        self._changed = threading.Condition()
        self._jpeg, self._number, self._watching, self._is_closed = b"", 0, 0, False
        try:
            self._server = _Server(("127.0.0.1", port), _Handler, self)
        except (OSError, OverflowError) as error:
            raise OutputError(f"preview: port {port} cannot be used ({getattr(error, 'strerror', error)})") from error
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, name="preview", daemon=True).start()

    def show(self, draw: Callable[[], np.ndarray]) -> None:
        """Shows the next frame.

        Args:
            draw: gives it, uint8 [H, W, 3] RGB; called only if somebody watches.
        """
        if not self._watching:
            return
        jpeg = cv2.imencode(".jpg", draw()[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
        with self._changed:
            self._jpeg, self._number = jpeg, self._number + 1
            self._changed.notify_all()

    def watch(self, send: Callable[[bytes], None]) -> None:
        """Sends frames until the preview is closed; `send` raises `OSError` when its reader has gone."""
        seen = 0
        with self._changed:
            self._watching += 1
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._is_closed or self._number > seen)  # noqa: B023
                    if self._is_closed:
                        return
                    jpeg, seen = self._jpeg, self._number
                send(jpeg)
        except OSError:
            return
        finally:
            with self._changed:
                self._watching -= 1

    def close(self) -> None:
        """Ends all streams and frees the port."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> "Preview":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], preview: Preview) -> None:
        super().__init__(address, handler)
        self.preview = preview


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        # A page of another site may have its name point to this machine; it would then ask for that name.
        if self.headers.get("Host", "").rsplit(":", 1)[0] not in ("127.0.0.1", "localhost"):
            self.send_error(403)
        elif self.path == "/":
            self._start("text/html; charset=utf-8")
            self.wfile.write(PAGE.encode())
        elif self.path == "/stream":
            self._start(f"multipart/x-mixed-replace; boundary={BOUNDARY}")
            self.server.preview.watch(self._send_frame)
        else:
            self.send_error(404)

    def _start(self, content_type: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Cache-Control", "no-store")
        self.end_headers()

    def _send_frame(self, jpeg: bytes) -> None:
        head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
        self.wfile.write(head.encode() + jpeg + b"\r\n")

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged."""
