"""What every request must have, and what every answer has.

- The `Host` header names this server: a foreign name that resolves to this machine reaches nothing.
- Requests to `/api` carry the header `X-Tab`. Pages of other origins cannot set it without asking first (CORS), and no answer
  allows it: that is the protection against forged requests. There are no cookies.
- Where a token is set, requests to `/api` carry it as well.
- A content security policy allows only files of this server.
"""

import ipaddress
import secrets
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from entitysam.serve.workspace import TAB

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors {ancestors}"
)
EMBEDDED = "http://localhost:* http://127.0.0.1:* vscode-webview:"  # where notebooks run


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """ASGI middleware that refuses requests before any of their body is read.

    Args:
        app: what is guarded.
        hosts: names and addresses that the `Host` header may have, without port; None = any (a token is needed then).
        token: that requests must carry; "" = none.
        embedded: the page may be shown inside a notebook.
    """

    def __init__(self, app: ASGIApp, hosts: set[str] | None, token: str = "", embedded: bool = False):
        self.app, self.hosts, self.token = app, hosts, token
        if hosts is None and not token:
            raise ValueError("a server that other machines reach needs a token")
        policy = POLICY.format(ancestors=EMBEDDED if embedded else "'none'")
        headers = {
            "content-security-policy": policy,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cross-origin-opener-policy": "same-origin",
            "cross-origin-resource-policy": "same-origin",
            "permissions-policy": "camera=(self), microphone=(), geolocation=()",
            "cache-control": "no-store",
        }
        if not embedded:
            headers["x-frame-options"] = "DENY"
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *self._headers]
            await send(message)

        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        problem = self._problem(scope["path"], headers)
        if problem:
            status, text = problem
            await JSONResponse({"error": text}, status)(scope, receive, send_guarded)
            return
        await self.app(scope, receive, send_guarded)

    def _problem(self, path: str, headers: dict[str, str]) -> tuple[int, str] | None:
        if self.hosts is not None and _name(headers.get("host", "")) not in self.hosts:
            return 403, "this server is not known under that name"
        if not path.startswith("/api"):
            return None
        origin = headers.get("origin")
        if origin is not None and origin.split("://")[-1] != headers.get("host"):
            return 403, "requests of other pages are refused"
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return 403, "requests of other pages are refused"
        given = headers.get("authorization", "").removeprefix("Bearer ")
        if self.token and not secrets.compare_digest(given.encode(), self.token.encode()):
            return 401, "the token is missing or wrong: open the address that the server printed"
        if not TAB.fullmatch(headers.get("x-tab", "")):
            return 403, "the request does not come from the page"
        return None


def _name(host: str) -> str:
    """A `Host` header without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def tab_of(request: Any) -> str:
    """The tab that a request comes from."""
    return request.headers["x-tab"]
