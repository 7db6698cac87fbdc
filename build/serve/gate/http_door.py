"""The HTTP door: questions about the server, and generate. A body is read whole, checked, and sent with its length."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from starlette.types import Receive, Scope, Send

from build.serve.gate import methods
from build.serve.gate.budget import Budget, FullError
from build.serve.gate.documents import read_object
from build.serve.gate.envelope import RefusedError
from build.serve.gate.forwarding import AnswerError, Upstream, told
from build.serve.gate.inputs import Inputs
from build.serve.gate.losses import Losses, Waiting
from build.serve.gate.settings import GateSettings
from build.serve.gate.stoppable import StoppableId
from build.serve.server.triton import ENSEMBLE

PROBES = ("/v2/health/live", "/v2/health/ready")

# A request whose client has gone may take so long to end by itself before its connection is closed.
_ENDING_SECONDS = 1.0


class HttpDoor:
    """An ASGI app. `stop` ends a request by its id."""

    def __init__(
        self, settings: GateSettings, budget: Budget, losses: Losses, stop: Callable[[str], Awaitable[None]]
    ) -> None:
        self._settings = settings
        self._budget = budget
        self._losses = losses
        self._stop = stop
        self._upstream = Upstream(settings.triton_http, settings)
        self._known_inputs: Inputs | None = None
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await told(self._answer, scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        asked = methods.asked(path)
        if asked is None and not (method == "GET" and methods.may_read(path)):
            raise AnswerError(HTTPStatus.FORBIDDEN, f"{method} {path[:256]} {methods.CLOSED}")
        if asked is not None:
            _check_asked(method, *asked)
        if self._open >= self._settings.max_calls:
            raise AnswerError(
                HTTPStatus.SERVICE_UNAVAILABLE, f"{self._open} requests are open, which is as many as may be"
            )
        self._open += 1
        try:
            if asked is None:
                await self._upstream.forward(scope, None, send)
            else:
                await self._ask(asked[0], scope, receive, send)
        finally:
            self._open -= 1

    async def _ask(self, model: str, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with self._budget.holding() as holding:
                body = await self._read(scope, receive, holding.add)
                document = read_object(body)
                given = document.get("id", "")
                stop: Callable[[], Awaitable[None]]
                if model == ENSEMBLE:
                    (await self._inputs()).check(document)
                    assert isinstance(given, str)
                    stoppable = StoppableId(given)
                    body = json.dumps({**document, "id": stoppable.travelling}).encode()
                    send = stoppable.answers_to(send)
                    stop = functools.partial(self._stop, stoppable.travelling)
                else:
                    body = _stop_request(document)
                    stop = _nothing
                await self._until_lost(model, receive, self._upstream.forward(scope, body, send), stop)
        except FullError as error:
            raise AnswerError(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from error
        except RefusedError as error:
            raise AnswerError(HTTPStatus.BAD_REQUEST, str(error)) from error

    async def _inputs(self) -> Inputs:
        """The ensemble's, which are the same as long as the server is served. Raises AnswerError."""
        if self._known_inputs is None:
            self._known_inputs = Inputs(json.loads(await self._upstream.read(f"/v2/models/{ENSEMBLE}/config")))
        return self._known_inputs

    async def _read(self, scope: Scope, receive: Receive, count: Callable[[int], None]) -> bytes:
        """The body. Raises AnswerError for one that is too long, or not there in time."""
        bounds = self._settings
        headers = dict(scope["headers"])
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise AnswerError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the body is compressed; send it as it is")
        if int(headers.get(b"content-length", b"0")) > bounds.max_json_bytes:
            raise _too_long(bounds)
        body = bytearray()
        try:
            async with asyncio.timeout(bounds.stall_seconds):
                while (message := await receive())["type"] == "http.request":
                    body += message["body"]
                    if len(body) > bounds.max_json_bytes:
                        raise _too_long(bounds)
                    count(len(message["body"]))
                    if not message["more_body"]:
                        return bytes(body)
        except TimeoutError:
            pass
        raise AnswerError(HTTPStatus.REQUEST_TIMEOUT, f"the body was not complete within {bounds.stall_seconds:g} s")

    async def _until_lost(
        self, model: str, receive: Receive, work: Awaitable[None], stop: Callable[[], Awaitable[None]]
    ) -> None:
        """Does the work until the client goes away, which ends what was begun, or the answer will not come.

        Raises:
            AnswerError: it will not come.
        """
        lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        waiting = Waiting(lost.set_result)
        waiting.ask(model)
        forwarding = asyncio.ensure_future(work)
        leaving = asyncio.create_task(_left(receive))
        first: list[asyncio.Future[Any]] = [forwarding, leaving, lost]
        try:
            with self._losses.watching(waiting):
                await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if leaving.done() and not forwarding.done():
                await stop()
            await asyncio.wait([forwarding], timeout=_ENDING_SECONDS)
        finally:
            leaving.cancel()
            forwarding.cancel()
            await asyncio.wait([forwarding])
        if not forwarding.cancelled():
            forwarding.result()
        elif lost.done():
            raise AnswerError(HTTPStatus.SERVICE_UNAVAILABLE, lost.result())


class MetricsDoor:
    """An ASGI app for Prometheus: `/metrics` and nothing else."""

    PATH = "/metrics"

    def __init__(self, settings: GateSettings) -> None:
        self._upstream = Upstream(settings.triton_metrics, settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await told(self._answer, scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (scope["method"], scope["path"]) != ("GET", self.PATH):
            raise AnswerError(HTTPStatus.NOT_FOUND, f"GET {self.PATH} is answered here, and nothing else")
        await self._upstream.forward(scope, None, send)


def _check_asked(method: str, model: str, kind: str) -> None:
    if method != "POST":
        raise AnswerError(HTTPStatus.METHOD_NOT_ALLOWED, f"{method} is not accepted here; POST is")
    if model not in (ENSEMBLE, "decoder"):
        raise AnswerError(HTTPStatus.FORBIDDEN, f"the model {model} is closed to clients; {ENSEMBLE} is open")
    if kind == "infer":
        raise AnswerError(HTTPStatus.NOT_IMPLEMENTED, methods.IN_PIECES)


def _stop_request(document: dict[str, object]) -> bytes:
    """The request for stage 3: to end a request, or with `stop` false to say how its engine is."""
    types = {name: type(value) for name, value in document.items()}
    if types not in ({"stop": bool}, {"stop": bool, "id": str}):
        raise RefusedError("the model decoder is asked with stop, true or false, and id, a string")
    return json.dumps(document).encode()


def _too_long(bounds: GateSettings) -> AnswerError:
    return AnswerError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"the body has more than {bounds.max_json_bytes:,} bytes; media travel by gRPC, or are named by video_uri",
    )


async def _nothing() -> None:
    """Ends a request that holds nothing."""


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
