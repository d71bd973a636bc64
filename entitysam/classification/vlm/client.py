"""One request to any server that speaks the chat-completions protocol, through the `openai` package."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import time
from typing import Any
from urllib.parse import urlsplit

from entitysam.classification.classifier import ClassifierError
from entitysam.classification.vlm.confidence import Token
from entitysam.registry import ConfigError

INSTALL = "needs the package 'openai': pip install 'entitysam[label]'"
REFUSED_FOR_ALL = {401: "refuses the key", 403: "refuses access", 404: "does not know the model or the address"}
TRY_AGAIN = (408, 409, 425, 429)


@dataclass(frozen=True)
class Reply:
    """What a server replied.

    Attributes:
        text: of the message.
        prompt_tokens, completion_tokens: as the server counts them, 0 where it does not.
        tokens: text and log-probability of the message's tokens, where the request asked for `logprobs`.
    """

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    tokens: Sequence[Token] = ()


class Fault(Exception):
    """A request without a usable reply.

    Attributes:
        kind: "429", "500", "time-out", "connection", ...: what is counted.
        again: the same request may succeed later.
        retry_after: seconds that the server asks to wait.
    """

    def __init__(self, kind: str, again: bool = True, retry_after: float = 0.0) -> None:
        super().__init__(kind)
        self.kind = kind
        self.again = again
        self.retry_after = retry_after


class ChatClient:
    """Settings of a server and a model.

    Args:
        model: its name at the server.
        base_url: of the server, up to and with "/v1"; empty = $OPENAI_BASE_URL, or OpenAI's own.
        key_env: environment variable with the key. The key itself is never kept in a config, written or logged.
        timeout: seconds for a whole request.
        parameters: further fields of the request, such as `temperature`.

    Raises:
        ConfigError: the package is missing, or OpenAI's own server and no key.
    """

    def __init__(
        self,
        model: str = "gpt-4o",
        base_url: str = "",
        key_env: str = "OPENAI_API_KEY",
        timeout: float = 60.0,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        try:
            import openai  # noqa: F401 - an extra
        except ImportError:
            raise ConfigError(f"classifier 'vlm' {INSTALL}") from None
        self.model = model
        self.parameters = dict(parameters or {})
        self._base_url = base_url or os.environ.get("OPENAI_BASE_URL") or None
        self._key = os.environ.get(key_env, "")
        self._key_env = key_env
        self._timeout = timeout
        if not self._key and not self._base_url:
            raise ConfigError(f"classifier 'vlm': no key in ${key_env}; set it, or give the base_url of a server")

    @property
    def server(self) -> str:
        """The server for messages, without path and password."""
        parts = urlsplit(self._base_url or "https://api.openai.com")
        return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)

    @asynccontextmanager
    async def session(self) -> AsyncIterator["ChatSession"]:
        """Connections that belong to the running event loop."""
        import openai

        # Local servers take any key, and the package insists on one.
        key, wait = self._key or "none", self._timeout
        async with openai.AsyncOpenAI(api_key=key, base_url=self._base_url, timeout=wait, max_retries=0) as connection:
            yield ChatSession(self, connection)

    def fault_of(self, error: Exception) -> Exception:
        """What an error of the package means: a `Fault`, or a `ClassifierError` where no request can succeed."""
        import openai

        if isinstance(error, asyncio.TimeoutError | openai.APITimeoutError):
            return Fault("time-out")
        if isinstance(error, openai.APIStatusError):
            if error.code == "insufficient_quota":
                return ClassifierError(f"{self.server}: the account's quota is used up")
            return self._status_fault(error.status_code, error.response.headers, str(error))
        if isinstance(error, openai.APIConnectionError):
            return Fault("connection")
        return Fault("unreadable response")

    def _status_fault(self, status: int, headers: Mapping[str, str], message: str) -> Exception:
        if status in REFUSED_FOR_ALL:
            why = f" (in ${self._key_env})" if status == 401 else f": {self._tidy(message)}"
            return ClassifierError(f"{self.server} {REFUSED_FOR_ALL[status]}{why}")
        again = status in TRY_AGAIN or status >= 500
        return Fault(str(status), again, retry_after(headers))

    def _tidy(self, message: str) -> str:
        """One short line without the key."""
        text = " ".join(message.split())
        return (text.replace(self._key, "***") if self._key else text)[:200]


class ChatSession:
    """See `ChatClient.session`."""

    def __init__(self, client: ChatClient, connection: Any) -> None:
        self._client = client
        self._connection = connection

    async def ask(self, messages: Sequence[Mapping[str, Any]]) -> Reply:
        """One request.

        Raises:
            Fault: no reply, or none with text.
            ClassifierError: no request to this server can succeed.
        """
        from openai import OpenAIError

        client = self._client
        create = self._connection.chat.completions.create
        # In `extra_body` a server may have fields that the package does not know.
        request = create(model=client.model, messages=list(messages), extra_body=client.parameters)
        try:
            completion = await asyncio.wait_for(request, client._timeout)
        except (OpenAIError, asyncio.TimeoutError, ValueError) as error:
            raise client.fault_of(error) from None
        try:
            choice, usage = completion.choices[0], completion.usage
            text = choice.message.content
        except (AttributeError, IndexError, TypeError):
            raise Fault("unreadable response") from None
        if not isinstance(text, str):
            raise Fault("no text in the reply")
        asked, answered = (getattr(usage, name, 0) or 0 for name in ("prompt_tokens", "completion_tokens"))
        listed = getattr(getattr(choice, "logprobs", None), "content", None) or ()
        return Reply(text, asked, answered, [(token.token, token.logprob) for token in listed])


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds to wait by the `Retry-After` header (seconds or a date) or OpenAI's `retry-after-ms`; 0 without."""
    try:
        if "retry-after-ms" in headers:
            return max(float(headers["retry-after-ms"]) / 1000, 0.0)
        return max(float(headers.get("retry-after", 0)), 0.0)
    except ValueError:
        pass
    try:
        return max(parsedate_to_datetime(headers["retry-after"]).timestamp() - time(), 0.0)
    except (TypeError, ValueError, KeyError):
        return 0.0
