"""HTTP requests to Triton, with the secret that opens it, and what it answers."""

from __future__ import annotations

import json
from http import HTTPStatus

import httpcore2 as httpcore
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from build.serve.gate import methods
from build.serve.gate.settings import GateSettings

_ACCESS = b"qwen3-vl-access"
_CONNECT_SECONDS = 5.0
# How a client's body and its answer travel is between it and the gate.
_FRAMING = frozenset({"accept-encoding", "content-encoding", "content-length", "expect", "upgrade"})
_ANSWERED = frozenset({b"content-type", b"content-length"})
_AWAY = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException)
_EVENTS = b"text/event-stream"
_EVENT_END = b"\n\n"


class AnswerError(Exception):
    """A request that is answered with this status and message."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class Upstream:
    """One of Triton's HTTP ports, `http://127.0.0.1:PORT`."""

    def __init__(self, url: str, settings: GateSettings) -> None:
        self._url = url
        self._access = (_ACCESS, settings.access.encode())
        silence = settings.silence_seconds
        self._timeout = {"connect": _CONNECT_SECONDS, "pool": _CONNECT_SECONDS, "read": silence, "write": silence}
        # A connection is used once: a kept one may be closed by Triton when the next request is sent.
        self._pool = httpcore.AsyncConnectionPool(max_connections=settings.max_calls, max_keepalive_connections=0)

    async def read(self, path: str) -> bytes:
        """Triton's answer to GET of this path.

        Raises:
            AnswerError: nothing was answered, or an error.
        """
        try:
            response = await self._pool.request(
                "GET", self._url + path, headers=[self._access], extensions={"timeout": self._timeout}
            )
        except _AWAY as error:
            raise _away(error) from error
        if response.status != HTTPStatus.OK:
            reason = response.content.decode(errors="replace")
            raise AnswerError(HTTPStatus.SERVICE_UNAVAILABLE, f"the server behind the gate is not ready: {reason}")
        return bytes(response.content)

    async def forward(self, scope: Scope, body: bytes | None, send: Send) -> None:
        """Sends the request with this body, and hands on what is answered, piece by piece.

        Raises:
            AnswerError: nothing was answered.
        """
        headers = [(name, value) for name, value in scope["headers"] if _travels(name.decode("latin-1"))]
        if body is not None:
            headers.append((b"content-length", str(len(body)).encode()))
        try:
            async with self._pool.stream(
                scope["method"],
                self._url + scope["path"],
                headers=[*headers, self._access],
                content=body,
                extensions={"timeout": self._timeout},
            ) as response:
                answered = [(name.lower(), value) for name, value in response.headers]
                kept = [(name, value) for name, value in answered if name in _ANSWERED]
                await send({"type": "http.response.start", "status": response.status, "headers": kept})
                async for piece in response.aiter_stream():
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        except _AWAY as error:
            raise _away(error) from error
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def told(work: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Does the work; an AnswerError is told in Triton's form, as a response of its own or as the last of events."""
    headers: dict[bytes, bytes] | None = None
    piece = b""

    async def watched(message: Message) -> None:
        nonlocal headers, piece
        if message["type"] == "http.response.start":
            headers = dict(message["headers"])
        piece = message.get("body") or piece
        await send(message)

    try:
        await work(scope, receive, watched)
    except AnswerError as error:
        if headers is None:
            await refusal(error.status, str(error))(scope, receive, send)
        elif headers.get(b"content-type", b"").startswith(_EVENTS):
            # An event that was cut ends first.
            begin = b"" if not piece or piece.endswith(_EVENT_END) else _EVENT_END
            event = begin + b"data: " + json.dumps({"error": str(error)}).encode() + _EVENT_END
            await send({"type": "http.response.body", "body": event})
        # Any other response that breaks off is one that uvicorn closes.


def refusal(status: HTTPStatus, message: str) -> ASGIApp:
    """An app that answers with an error in Triton's form."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        body = json.dumps({"error": message}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": int(status), "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return answer


def _away(error: Exception) -> AnswerError:
    message = f"the server behind the gate does not answer: {error or type(error).__name__}"
    return AnswerError(HTTPStatus.SERVICE_UNAVAILABLE, message)


def _travels(name: str) -> bool:
    return methods.travels(name) and name not in _FRAMING
