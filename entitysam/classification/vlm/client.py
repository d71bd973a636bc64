"""Sends one request to a server with the chat-completions protocol, by the `openai` package."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from entitysam.classification.classifier import ClassifierError
from entitysam.classification.vlm.confidence import Token
from entitysam.classification.vlm.faults import Fault, refused_fields, retry_after, sentence_of
from entitysam.registry import ConfigError

INSTALL = "needs the package 'openai': pip install 'entitysam[label]'"
RETRY = (408, 409, 425, 429)  # status codes below 500 after which the same request may succeed
MAY_NAME_FIELD = (200, 400, 422)  # status codes of errors about a field of the request


@dataclass(frozen=True)
class Reply:
    """A server's reply.

    Attributes:
        text: content of the message.
        prompt_tokens, completion_tokens: as counted by the server; 0 where it counts none.
        tokens: the message's tokens with their log-probabilities; empty unless the request asks for `logprobs`.
    """

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    tokens: Sequence[Token] = ()


class ChatClient:
    """A model on a server.

    Args:
        model: name of the model.
        base_url: address of the server, up to and including "/v1"; empty = $OPENAI_BASE_URL, or OpenAI's own.
        key_env: environment variable with the key. The key is never stored in a config, written or logged.
        timeout: seconds for a whole request.
        parameters: optional fields of the request, such as `temperature`. Fields that the server refuses are removed.
        key_needed: refuse a missing key here rather than at the first request.

    Raises:
        ConfigError: the package is missing, or there is no key for OpenAI's own server.
    """

    def __init__(
        self,
        model: str = "gpt-4o",
        base_url: str = "",
        key_env: str = "OPENAI_API_KEY",
        timeout: float = 60.0,
        parameters: Mapping[str, Any] | None = None,
        key_needed: bool = True,
    ) -> None:
        try:
            import openai  # noqa: F401 - optional dependency
        except ImportError:
            raise ConfigError(f"classifier 'vlm' {INSTALL}") from None
        self.model = model
        self.parameters = dict(parameters or {})
        self.timeout = timeout
        self._base_url = base_url or os.environ.get("OPENAI_BASE_URL") or None
        self._key = os.environ.get(key_env, "")
        self._key_env = key_env
        if key_needed and not self._key and not self._base_url:
            raise ConfigError(f"classifier 'vlm': no key in ${key_env}; set it, or give the base_url of a server")

    @property
    def server(self) -> str:
        """Host and port for messages, without path and password."""
        parts = urlsplit(self._base_url or "https://api.openai.com")
        return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)

    @asynccontextmanager
    async def session(self) -> AsyncIterator["ChatSession"]:
        """Opens connections that belong to the running event loop."""
        import openai

        # Local servers accept any key, but the package requires one.
        key, timeout = self._key or "none", self.timeout
        async with openai.AsyncOpenAI(
            api_key=key, base_url=self._base_url, timeout=timeout, max_retries=0
        ) as connection:
            yield ChatSession(self, connection)

    def to_fault(self, error: Exception, fields: Iterable[str]) -> Exception:
        """Translates an error of the package.

        Args:
            error: the error.
            fields: optional fields of the request that failed.

        Returns:
            a `Fault`, or a `ClassifierError` where no request can succeed.
        """
        import openai

        if isinstance(error, asyncio.TimeoutError | openai.APITimeoutError):
            return Fault("time-out")
        if isinstance(error, openai.APIStatusError):
            body = error.body if error.body is not None else error.response.text
            return self.status_fault(error.status_code, body, fields, error.response.headers)
        if isinstance(error, openai.APIConnectionError):
            return Fault("connection")
        return Fault("unreadable response")

    def status_fault(
        self, status: int, body: Any, fields: Iterable[str], headers: Mapping[str, str] | None = None
    ) -> Exception:
        """The error of a status code with an error body; see `to_fault`."""
        sentence = sentence_of(body, self._key)
        detail = body if isinstance(body, Mapping) else {}
        if detail.get("code") == "insufficient_quota":
            return ClassifierError(f"{self.server}: the account's quota is used up ({sentence})")
        if status == 401:
            return ClassifierError(f"{self.server} refuses the key in ${self._key_env}")
        if status == 403:
            return ClassifierError(f"{self.server} refuses access: {sentence}")
        if status == 404:
            return ClassifierError(
                f"{self.server} does not know the model '{self.model}' (--vlm) or the address (--base-url): {sentence}"
            )
        refused = refused_fields(sentence, detail.get("param"), fields) if status in MAY_NAME_FIELD else frozenset()
        again = status in RETRY or not 400 <= status < 500
        return Fault(str(status), again, retry_after(headers or {}), sentence, refused)

    def remove_fields(self, names: Iterable[str]) -> None:
        """Sends these optional fields no longer."""
        for name in names:
            self.parameters.pop(name, None)


class ChatSession:
    """See `ChatClient.session`."""

    def __init__(self, client: ChatClient, connection: Any) -> None:
        self._client = client
        self._connection = connection

    async def ask(self, messages: Sequence[Mapping[str, Any]]) -> Reply:
        """Sends one request.

        Raises:
            Fault: no reply, or a reply without text.
            ClassifierError: no request to this server can succeed.
        """
        from openai import OpenAIError

        client, fields = self._client, dict(self._client.parameters)
        create = self._connection.chat.completions.create
        # `extra_body` also takes fields that the package does not know.
        request = create(model=client.model, messages=list(messages), extra_body=fields)
        try:
            completion = await asyncio.wait_for(request, client.timeout)
        except (OpenAIError, asyncio.TimeoutError, ValueError) as error:
            raise client.to_fault(error, fields) from None
        error_body = getattr(completion, "error", None)
        if error_body:  # an error with status 200
            raise client.status_fault(_status_of(error_body), error_body, fields)
        return _read_completion(completion)


def _status_of(error_body: Any) -> int:
    """The status code that an error body gives; 200 without one."""
    code = error_body.get("code") if isinstance(error_body, Mapping) else None
    return int(code) if isinstance(code, int | str) and str(code).isdecimal() and len(str(code)) == 3 else 200


def _read_completion(completion: Any) -> Reply:
    try:
        choice, usage = completion.choices[0], completion.usage
        text = choice.message.content
    except (AttributeError, IndexError, TypeError):
        raise Fault("unreadable response") from None
    if not isinstance(text, str):
        raise Fault("no text in the reply")
    prompt_tokens, completion_tokens = (getattr(usage, name, 0) or 0 for name in ("prompt_tokens", "completion_tokens"))
    listed = getattr(getattr(choice, "logprobs", None), "content", None) or ()
    return Reply(text, prompt_tokens, completion_tokens, [(token.token, token.logprob) for token in listed])
